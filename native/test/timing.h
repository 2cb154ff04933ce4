// Times for the C++ benchmarks. On a machine that others use too only processor time compares: it does not count the
// time in which they ran.
#pragma once
#include <algorithm>
#include <chrono>
#include <ctime>
#include <vector>

#include "core/thread_pool.h"

namespace topknot::test {

/// Of all threads together.
inline double processorSeconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Seconds of wall time, and of processor time divided by the number of threads.
struct Time {
  double wall = 1e30, cpu = 1e30;
};

/// The least of `repeat` runs.
inline Time timed(int repeat, const auto& work) {
  Time best;
  for (int i = 0; i < repeat; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double cpu = processorSeconds();
    work();
    best.cpu = std::min(best.cpu, (processorSeconds() - cpu) / threadCount());
    best.wall = std::min(best.wall, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

inline double median(std::vector<double> x) {
  const auto middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
  std::nth_element(x.begin(), middle, x.end());
  return *middle;
}

}  // namespace topknot::test
