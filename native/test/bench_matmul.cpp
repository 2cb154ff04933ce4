// Matrix products against the multiply-add peak of this machine, measured in turn with every case.
// Usage: bench_matmul [rounds] [m n k [transposes]]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "test/timing.h"

using namespace topknot;
using namespace topknot::test;

namespace {

struct Size {
  int64_t m, n, k;
  int transposes = 0;  // 1: a, 2: b
  int64_t batch = 1;
};

void report(const Size& s, int rounds) {
  const int64_t aSize = s.m * s.k, bSize = s.k * s.n, cSize = s.m * s.n;
  Tensor a = Tensor::host<float>({s.batch * aSize}), b = Tensor::host<float>({s.batch * bSize}),
         c = Tensor::host<float>({s.batch * cSize}, true);
  Random random(1, 0);
  for (Tensor* t : {&a, &b}) {
    for (float& x : t->span<float>()) x = static_cast<float>(random.uniform());
  }
  const bool aT = s.transposes & 1, bT = s.transposes & 2;
  MatmulArgs args{.m = s.m,
                  .n = s.n,
                  .k = s.k,
                  .a = {a.data<float>(), aT ? s.m : s.k, aT},
                  .b = {b.data<float>(), bT ? s.k : s.n, bT},
                  .c = c.data<float>(),
                  .cStride = s.n};
  args.batch = {.rank = 1, .dims = {s.batch}, .aStride = {aSize}, .bStride = {bSize}, .cStride = cSize};
  const double flops = 2.0 * static_cast<double>(s.batch * s.m * s.n) * static_cast<double>(s.k);
  std::vector<double> rates, peaks;
  for (int round = 0; round < rounds; ++round) {
    double sum;
    int64_t peakFlops;
    const double limit = timed(3, [&] {
                           run(cpuBackend(), &Backend::measureFma, "measureFma", Exec{},
                               MeasureFmaArgs{threadCount() * int64_t{4}, 0.5f, 1.0f, &sum, &peakFlops});
                         }).cpu;
    const int repeat = std::clamp(static_cast<int>(3e9 / flops), 1, 1000);
    const double time = timed(repeat, [&] { run(cpuBackend(), &Backend::matmul, "matmul", Exec{}, args); }).cpu;
    rates.push_back(flops / time / 1e9), peaks.push_back(static_cast<double>(peakFlops) / limit / 1e9);
  }
  const double rate = *std::max_element(rates.begin(), rates.end()),
               peak = *std::max_element(peaks.begin(), peaks.end());
  std::printf("%5lld x %5lld x %5lld %s%s batch %4lld  best %7.1f GFLOP/s, median %7.1f, peak %7.1f: %5.1f%%\n",
              static_cast<long long>(s.m), static_cast<long long>(s.n), static_cast<long long>(s.k), aT ? "T" : "N",
              bT ? "T" : "N", static_cast<long long>(s.batch), rate, median(rates), peak, 100 * rate / peak);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  std::printf("%d threads, %s\n", threadCount(), cpuBackend().isa);
  if (argc > 4) {
    report({std::atoll(argv[2]), std::atoll(argv[3]), std::atoll(argv[4]), argc > 5 ? std::atoi(argv[5]) : 0}, rounds);
    return 0;
  }
  const Size sizes[] = {{512, 512, 512},       {2048, 2048, 2048}, {512, 512, 512, 2},   {512, 512, 512, 1},
                        {2048, 2048, 2048, 3}, {1024, 64, 128, 2}, {4096, 256, 512, 2},  {64, 64, 65536, 1},
                        {1, 1024, 1024, 2},    {8, 1024, 1024, 2}, {50, 50, 32, 2, 128}, {100000, 64, 64}};
  for (const Size& s : sizes) report(s, rounds);
}
