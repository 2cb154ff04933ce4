// Embedding lookups against how fast random rows can be read: a plain loop with prefetch over the same ids, no sums
// kept apart, is measured in turn with them. Usage: bench_embedding [rounds]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"

using namespace topknot;

namespace {

constexpr int64_t rows = 1000000, bags = 2048, size = 32;

/// Ids that fall off as rank^-1.05, spread over the table; or uniform ones.
Tensor makeIds(bool zipf, uint64_t seed) {
  Tensor ids = Tensor::host<int32_t>({bags, size});
  std::vector<double> ends;
  double sum = 0;
  for (int64_t r = 0; zipf && r < rows; ++r) ends.push_back(sum += std::pow(static_cast<double>(r + 1), -1.05));
  Random random(seed, 0);
  for (int32_t& id : ids.span<int32_t>()) {
    const uint64_t rank =
        zipf ? static_cast<uint64_t>(std::upper_bound(ends.begin(), ends.end(), random.uniform() * sum) - ends.begin())
             : random.below(rows);
    id = static_cast<int32_t>(std::min<uint64_t>(rank, rows - 1) * 999983 % rows);
  }
  return ids;
}

/// Processor time of all threads, divided by their number: on a machine that others use too, wall time counts theirs.
double seconds(const auto& work) {
  const auto now = [] {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const double start = now();
  work();
  return (now() - start) / threadCount();
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

/// Touches each cache line of the rows, with the prefetch that the machine likes best.
void readRows(const Tensor& table, const Tensor& ids, int64_t ahead) {
  const int64_t bytes = static_cast<int64_t>(table.bytes()) / rows, n = ids.count();
  parallelFor(n, 1024, Exec{.priority = 1}, [&](int64_t begin, int64_t end, int) {
    const char* data = table.data<char>();
    int64_t sum = 0;
    for (int64_t i = begin; i < end; ++i) {
      if (i + ahead < n) {
        const char* next = data + ids.data<int32_t>()[i + ahead] * bytes;
        for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(next + b);
      }
      const char* row = data + ids.data<int32_t>()[i] * bytes;
      for (int64_t b = 0; b < bytes; b += 64) sum += row[b];
    }
    asm volatile("" ::"r"(sum));
  });
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  std::printf("%d threads, %s; GB/s of looked-up rows, medians of %d rounds (best)\n", threadCount(), cpuBackend().isa,
              rounds);
  for (int64_t cols : {64, 128}) {
    Job job(1);
    Tensor table = Tensor::host<float>({rows, cols});
    parallelFor(table.count(), 1 << 16, job.exec(), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) table.data<float>()[i] = static_cast<float>(i % 1000) * 1e-3f;
    });
    for (bool zipf : {false, true}) {
      const char* names[] = {"read 8 ahead", "read 16 ahead", "sum", "mean", "max"};
      std::vector<double> rates[5];
      const double bytes = static_cast<double>(bags * size * cols * 4);
      for (int round = 0; round < rounds; ++round) {
        const Tensor ids = makeIds(zipf, static_cast<uint64_t>(round));
        for (int what = 0; what < 5; ++what) {
          const Tensor cold = makeIds(false, 1000 + static_cast<uint64_t>(round));
          readRows(table, cold, 8);  // the same start for all: what this leaves in the caches
          rates[what].push_back(bytes / 1e9 / seconds([&] {
                                  if (what < 2) readRows(table, ids, what == 0 ? 8 : 16);
                                  else
                                    ops::embeddingBagRows(job, {table, {}, {}}, ids, std::nullopt,
                                                          {static_cast<BagMode>(what - 2), {}, -1});
                                }));
        }
      }
      std::printf("1M x %3ld %-7s", static_cast<long>(cols), zipf ? "zipf" : "uniform");
      for (int what = 0; what < 5; ++what) {
        std::printf(" | %s %5.1f (%5.1f)", names[what], median(rates[what]),
                    *std::max_element(rates[what].begin(), rates[what].end()));
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
}
