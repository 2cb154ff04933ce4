// The storages of the exact index beside each other, in turn, so that a ratio compares moments that lie together. Least
// processor times of all threads over their number, which on a machine that others use too leave out the time in which
// others ran. Usage: bench_index [rounds] [queries] [rows]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"

using namespace topknot;

namespace {

Tensor matrix(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor t = Tensor::host<float>({rows, cols});
  parallelFor(rows, 4096, Exec{}, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      Random random(seed, static_cast<uint64_t>(r));
      for (int64_t c = 0; c < cols; ++c) t.data<float>()[r * cols + c] = static_cast<float>(random.normal());
    }
  });
  return t;
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Contestant {
  const char* name;
  Tensor queries;
  IndexSegment segment;
  IndexSearchOptions options;
  double least = 1e30;
  IndexSearchResult found;
};

double recall(const IndexSearchResult& found, const IndexSearchResult& exact, int64_t k) {
  int64_t hits = 0;
  const int64_t count = exact.ids.tensor.rows();
  for (int64_t q = 0; q < count; ++q) {
    const int32_t* best = exact.ids.tensor.data<int32_t>() + q * k;
    for (int64_t j = 0; j < k; ++j) hits += std::count(best, best + k, found.ids.tensor.data<int32_t>()[q * k + j]);
  }
  return static_cast<double>(hits) / static_cast<double>(count * k);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  const int64_t only = argc > 2 ? std::atoll(argv[2]) : 0, rows = argc > 3 ? std::atoll(argv[3]) : 1000000;
  const int64_t dims = 64, k = 10;
  Job job(1);
  const Tensor items = matrix(rows, dims, 7), norms = ops::squaredNorms(job, items);
  const auto half = [&]<class T>(T) {
    Tensor t = Tensor::host<T>({rows, dims});
    for (int64_t i = 0; i < t.count(); ++i) {
      if constexpr (std::is_same_v<T, Float16>) t.data<T>()[i] = toFloat16(items.data<float>()[i]);
      else t.data<T>()[i] = toBFloat16(items.data<float>()[i]);
    }
    return t;
  };
  const Tensor f16 = half(Float16{}), bf16 = half(BFloat16{});
  Tensor bits = Tensor::host<uint8_t>({rows, dims});  // 512 bits
  for (int64_t i = 0; i < bits.count(); ++i)
    bits.data<uint8_t>()[i] = static_cast<uint8_t>(items.data<int32_t>()[i] >> 8);
  double start = seconds();
  const Int8Codes codes = ops::int8Codes(job, items, false);
  std::printf("%d threads, %s; codes of %ld x %ld made in %.0f ms\n", threadCount(), cpuBackend().isa,
              static_cast<long>(rows), static_cast<long>(dims), 1e3 * (seconds() - start));
  for (int64_t count : {1, 16, 256}) {
    if (only && only != count) continue;
    const Tensor queries = matrix(count, dims, 8);
    Tensor bitQueries = Tensor::host<uint8_t>({count, dims});
    std::memcpy(bitQueries.data<char>(), bits.data<char>(), bitQueries.bytes());
    const IndexSearchOptions plain{k, Metric::innerProduct, 4, false}, exact{k, Metric::innerProduct, 4, true};
    Contestant all[] = {
        {"float32", queries, {items, norms, {}, {}}, plain},       {"float16", queries, {f16, norms, {}, {}}, plain},
        {"bfloat16", queries, {bf16, norms, {}, {}}, plain},       {"int8", queries, {items, norms, codes, {}}, plain},
        {"int8 exact", queries, {items, norms, codes, {}}, exact}, {"512 bits", bitQueries, {bits, {}, {}, {}}, plain}};
    double read = 1e30, fma = 1e30, sum = 0;
    int64_t flops = 0;
    for (int round = 0; round < rounds; ++round) {
      start = seconds();
      run(cpuBackend(), &Backend::measureRead, "measureRead", job.exec(),
          MeasureReadArgs{items.data<float>(), items.count(), &sum});
      read = std::min(read, seconds() - start);
      start = seconds();
      run(cpuBackend(), &Backend::measureFma, "measureFma", job.exec(),
          MeasureFmaArgs{threadCount() * int64_t{64}, 0.5f, 1.0f, &sum, &flops});
      fma = std::min(fma, seconds() - start);
      for (Contestant& c : all) {
        start = seconds();
        c.found = ops::indexSearch(job, c.queries, {c.segment}, c.options);
        c.least = std::min(c.least, seconds() - start);
      }
    }
    std::printf("%ld queries; read %.1f GB/s, FMA %.0f GFLOP/s\n", static_cast<long>(count),
                static_cast<double>(items.bytes()) / read / 1e9, static_cast<double>(flops) / fma / 1e9);
    for (const Contestant& c : all) {
      const double work = 2e-9 * static_cast<double>(rows * dims * count);
      std::printf("  %-11s %8.2f ms  %5.2f x float32  %6.0f GOP/s", c.name, 1e3 * c.least, all[0].least / c.least,
                  work / c.least);
      if (c.segment.vectors.dtype != DType::uint8) std::printf("  recall %.5f", recall(c.found, all[0].found, k));
      if (c.options.exact)
        std::printf("  proven %ld of %ld", static_cast<long>(c.found.proven), static_cast<long>(count));
      std::printf("\n");
    }
  }
}
