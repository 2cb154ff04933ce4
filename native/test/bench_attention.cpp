// Attention against the multiply-add peak of this machine, measured in turn with every case.
// Usage: bench_attention [rounds [text that names of cases contain]]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/timing.h"

using namespace topknot;
using namespace topknot::test;

namespace {

Tensor normals(Shape shape, uint64_t seed) {
  Tensor t = Tensor::host<float>(shape);
  Random random(seed, 0);
  for (float& x : t.span<float>()) x = static_cast<float>(random.normal());
  return t;
}

const char* wanted = "";

void report(const char* name, double flops, int rounds, const auto& work) {
  if (!std::strstr(name, wanted)) return;
  std::vector<double> rate, peak, share, wall;
  work();
  for (int round = 0; round < rounds; ++round) {
    double sum;
    int64_t peakFlops;
    const Time limit = timed(3, [&] {
      run(cpuBackend(), &Backend::measureFma, "measureFma", Exec{},
          MeasureFmaArgs{threadCount() * int64_t{16}, 0.5f, 1.0f, &sum, &peakFlops});
    });
    const Time time = timed(flops < 1e9 ? 10 : 3, work);
    rate.push_back(flops / time.cpu / 1e9);
    peak.push_back(static_cast<double>(peakFlops) / limit.cpu / 1e9);
    share.push_back(rate.back() / peak.back());
    wall.push_back(time.wall * 1e3);
  }
  std::printf("%-34s %9.3f ms %7.1f GFLOP/s of %6.1f: %5.1f%%\n", name, median(wall), median(rate), median(peak),
              100 * median(share));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  if (argc > 2) wanted = argv[2];
  std::printf("%d threads, %s; rates in processor time, operations of masked pairs not counted\n", threadCount(),
              cpuBackend().isa);
  Stream stream;
  for (const auto& [batch, heads, length, dims] :
       {std::array<int64_t, 4>{64, 2, 50, 32}, {32, 8, 200, 64}, {8, 8, 512, 64}, {1, 16, 2048, 64}}) {
    const Shape shape{batch, heads, length, dims};
    const Tensor q = normals(shape, 1), k = normals(shape, 2), v = normals(shape, 3), weight = normals(shape, 4);
    for (const bool causal : {false, true}) {
      AttentionOptions options;
      options.causal = causal;
      const double pairs =
          static_cast<double>(batch * heads) * (causal ? 0.5 * length * (length + 1) : length * length);
      const std::string name = concat("(", batch, ",", heads, ",", length, ",", dims, ")", causal ? " causal" : "");
      report(name.c_str(), 4 * pairs * static_cast<double>(dims), rounds,
             [&] { ops::attention(stream, q, k, v, options).out.pending->wait(); });
      const AttentionResult r = ops::attention(stream, q, k, v, options);
      report((name + " backward").c_str(), 10 * pairs * static_cast<double>(dims), rounds,
             [&] { ops::attentionBackward(stream, weight, q, k, v, r.out, r.logSumExp, options).q.pending->wait(); });
    }
  }
}
