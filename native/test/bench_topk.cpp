// Top-k against what this machine can do: read bandwidth and multiply-add peak are measured in turn with every search,
// so that a share compares moments that lie together. Usage: bench_topk [rounds] [queries]
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/timing.h"

using namespace topknot;
using namespace topknot::test;

namespace {

Tensor matrix(int64_t rows, int64_t cols) {
  Tensor t = Tensor::host<float>({rows, cols});
  parallelFor(rows, 4096, Exec{}, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      Random random(7, static_cast<uint64_t>(r));
      for (int64_t c = 0; c < cols; ++c) t.data<float>()[r * cols + c] = static_cast<float>(random.normal());
    }
  });
  return t;
}

/// The medians over rounds of wall shares and processor shares of one limit.
struct Share {
  std::vector<double> wall, cpu, limits;

  void add(double work, const Time& time, double limitWork, const Time& limit) {
    wall.push_back(work / time.wall / (limitWork / limit.wall));
    cpu.push_back(work / time.cpu / (limitWork / limit.cpu));
    limits.push_back(limitWork / limit.cpu / 1e9);
  }
  void print(const char* unit) const {
    std::printf(" | of %5.1f %s: %5.1f%% cpu %5.1f%% wall", median(limits), unit, 100 * median(cpu),
                100 * median(wall));
  }
};

void measure(const Tensor& items, const Tensor& norms, int64_t count, int64_t k, Metric metric, int rounds) {
  Job job(1);
  const Tensor queries = matrix(count, items.cols());
  const double bytes = static_cast<double>(items.bytes()), flops = 2.0 * bytes / 4 * static_cast<double>(count);
  const int repeat = flops > 2e10 ? 1 : 3;
  std::vector<double> times;
  Share read, fma;
  ops::topk(job, queries, items, norms, k, metric, {});
  for (int round = 0; round < rounds; ++round) {
    double sum;
    int64_t peakFlops;
    const Time readTime = timed(3, [&] {
      run(cpuBackend(), &Backend::measureRead, "measureRead", job.exec(),
          MeasureReadArgs{items.data<float>(), items.count(), &sum});
    });
    const Time fmaTime = timed(3, [&] {
      run(cpuBackend(), &Backend::measureFma, "measureFma", job.exec(),
          MeasureFmaArgs{threadCount() * int64_t{64}, 0.5f, 1.0f, &sum, &peakFlops});
    });
    const Time time = timed(repeat, [&] { ops::topk(job, queries, items, norms, k, metric, {}); });
    times.push_back(time.wall);
    read.add(bytes, time, bytes, readTime);
    fma.add(flops, time, static_cast<double>(peakFlops), fmaTime);
  }
  const char* names[] = {"ip", "cosine", "l2"};
  std::printf("%5ld x %7ld x %3ld k=%3ld %-6s %9.3f ms", static_cast<long>(count), static_cast<long>(items.rows()),
              static_cast<long>(items.cols()), static_cast<long>(k), names[static_cast<int>(metric)],
              median(times) * 1e3);
  if (count <= 16) read.print("GB/s");
  if (count > 1) fma.print("GFLOP/s");
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  const int64_t only = argc > 2 ? std::atoi(argv[2]) : 0;
  std::printf("%d threads, %s\n", threadCount(), cpuBackend().isa);
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{4000, 64}, {1000000, 64}, {100000, 128}}) {
    const Tensor items = matrix(rows, cols);
    Job job;
    const Tensor norms = ops::squaredNorms(job, items);
    for (int64_t count : {1, 2, 4, 8, 16, 64, 256, 1024, 4096}) {
      if (only && count != only) continue;
      for (int64_t k : {10, 100}) measure(items, norms, count, k, Metric::innerProduct, count > 1000 ? 2 : rounds);
      if (count == 1 || count == 256) {
        measure(items, norms, count, 10, Metric::cosine, rounds);
        measure(items, norms, count, 10, Metric::l2, rounds);
      }
    }
  }
}
