// Dense batched algebra across SIMD lanes beside Eigen, one matrix at a time, on one thread; processor time per matrix.
// Usage: bench_linalg [rounds]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "cpu/kernels/linalg_eigen.h"
#include "ops/ops.h"

using namespace topknot;

namespace {

double threadSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Memory that the kernels write to.
struct Case {
  int64_t batch, n;
  std::vector<float> a, b, x, y, z;
  std::vector<int32_t> status;

  Case(int64_t count, int64_t size) : batch(count), n(size) {
    const auto square = static_cast<size_t>(batch * n * n);
    a.resize(square), x.resize(square), y.resize(square), z.resize(square);
    b.resize(static_cast<size_t>(batch * n)), status.resize(static_cast<size_t>(batch));
    Random random(1, 0);
    for (float& v : b) v = static_cast<float>(random.normal());
    for (int64_t m = 0; m < batch; ++m) {
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j <= i; ++j) {
          const float v = i == j ? 2 * static_cast<float>(n) : static_cast<float>(random.normal());
          a[static_cast<size_t>((m * n + i) * n + j)] = a[static_cast<size_t>((m * n + j) * n + i)] = v;
        }
      }
    }
  }
};

/// The least time of some rounds, in microseconds for each matrix.
double best(int rounds, int64_t batch, const std::function<void()>& run) {
  double least = 1e30;
  for (int r = 0; r < rounds; ++r) {
    const double begin = threadSeconds();
    run();
    least = std::min(least, threadSeconds() - begin);
  }
  return 1e6 * least / static_cast<double>(batch);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  setThreadCount(1);
  const Backend& backend = cpuBackend();
  const Exec exec;
  std::printf("isa %s, float32, one thread, microseconds of processor time per matrix\n", backend.isa);
  std::printf("%-16s %4s %10s %10s %8s\n", "", "n", "lanes", "Eigen", "ratio");
  for (int64_t n : {4, 8, 16, 32, 48, 64}) {
    Case c(std::max<int64_t>(64, (1 << 20) / (n * n * n)), n);
    using E = EigenLinalg<float>;
    const auto p = Precision::float32;
    const auto at = [&](std::vector<float>& v, int64_t m, int64_t count) { return v.data() + m * count; };
    const auto row = [&](const char* name, const std::function<void()>& lanes,
                         const std::function<void(int64_t)>& one) {
      const double ours = best(rounds, c.batch, lanes);
      const double eigen = best(rounds, c.batch, [&] {
        for (int64_t m = 0; m < c.batch; ++m) one(m);
      });
      std::printf("%-16s %4ld %10.3f %10.3f %7.2fx\n", name, static_cast<long>(n), ours, eigen, eigen / ours);
    };
    row(
        "cholesky solve",
        [&] {
          check(backend.choleskySolve(exec,
                                      {p, c.batch, n, 1, c.a.data(), false, c.b.data(), c.y.data(), c.status.data()}));
        },
        [&](int64_t m) {
          E::cholesky(at(c.a, m, n * n), n, at(c.x, m, n * n));
          E::choleskySolve(at(c.x, m, n * n), n, at(c.b, m, n), 1, at(c.y, m, n));
        });
    row(
        "lu solve",
        [&] {
          check(backend.luSolve(exec, {p, c.batch, n, 1, c.a.data(), c.b.data(), c.y.data(), c.status.data()}));
        },
        [&](int64_t m) { E::luSolve(at(c.a, m, n * n), n, at(c.b, m, n), 1, at(c.y, m, n)); });
    row(
        "qr",
        [&] {
          check(backend.qr(exec, {p, c.batch, n, n, c.a.data(), c.x.data(), c.y.data(), c.status.data()}));
        },
        [&](int64_t m) { E::qr(at(c.a, m, n * n), n, n, at(c.x, m, n * n), at(c.y, m, n * n)); });
    row(
        "eigh",
        [&] {
          check(backend.eigh(exec, {p, c.batch, n, c.a.data(), c.y.data(), c.x.data(), c.status.data()}));
        },
        [&](int64_t m) { E::eigh(at(c.a, m, n * n), n, at(c.y, m, n), at(c.x, m, n * n)); });
    row(
        "svd",
        [&] {
          check(backend.svd(exec, {p, c.batch, n, n, c.a.data(), c.x.data(), c.z.data(), c.y.data(), c.status.data()}));
        },
        [&](int64_t m) { E::svd(at(c.a, m, n * n), n, n, at(c.x, m, n * n), at(c.z, m, n), at(c.y, m, n * n)); });
  }
  return 0;
}
