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

/// Backward and a step of row-wise Adagrad, against copying random rows in place: read, add one, write.
void updateRows(Tensor& table, const Tensor& ids, int64_t ahead) {
  const int64_t cols = table.cols(), n = ids.count();
  parallelFor(n, 1024, Exec{.priority = 1}, [&](int64_t begin, int64_t end, int) {
    float* data = table.data<float>();
    for (int64_t i = begin; i < end; ++i) {
      if (i + ahead < n) {
        const float* next = data + ids.data<int32_t>()[i + ahead] * cols;
        for (int64_t c = 0; c < cols; c += 16) __builtin_prefetch(next + c, 1);
      }
      float* row = data + ids.data<int32_t>()[i] * cols;
      for (int64_t c = 0; c < cols; c += 16) row[c] += 1;
    }
  });
}

struct Contest {
  std::vector<const char*> names;
  std::vector<std::vector<double>> rates;

  void add(size_t at, const char* name, double rate) {
    if (names.size() <= at) names.push_back(name), rates.emplace_back();
    rates[at].push_back(rate);
  }
  void print() const {
    for (size_t i = 0; i < names.size(); ++i) {
      std::printf(" | %s %5.1f (%5.1f)", names[i], median(rates[i]),
                  *std::max_element(rates[i].begin(), rates[i].end()));
    }
    std::printf("\n");
    std::fflush(stdout);
  }
};

void measure(Tensor& table, bool zipf, int rounds) {
  Job job(1);
  const int64_t cols = table.cols();
  const double bytes = static_cast<double>(bags * size * cols * 4) / 1e9;
  Contest forward, backward;
  Tensor gradient = Tensor::host<float>({bags, cols});
  for (int64_t i = 0; i < gradient.count(); ++i) gradient.data<float>()[i] = static_cast<float>(i % 100) * 1e-4f;
  const std::vector<Tensor> state{Tensor::host<float>({rows}, true)};
  for (int round = 0; round < rounds; ++round) {
    const Tensor ids = makeIds(zipf, static_cast<uint64_t>(round)),
                 cold = makeIds(false, 1000u + static_cast<uint64_t>(round));
    size_t at = 0;
    const auto timed = [&](Contest& contest, const char* name, const auto& work) {
      readRows(table, cold, 8);  // the same start for all: what this leaves in the caches
      contest.add(at++, name, bytes / seconds(work));
    };
    timed(forward, "read 8 ahead", [&] { readRows(table, ids, 8); });
    timed(forward, "read 16 ahead", [&] { readRows(table, ids, 16); });
    for (BagMode mode : {BagMode::sum, BagMode::mean, BagMode::max}) {
      timed(forward, topknotNames(mode)[static_cast<size_t>(mode)], [&] {
        ops::embeddingBagRows(job, {table, {}, {}}, ids, std::nullopt, {mode, {}, -1}, {});
      });
    }
    at = 0;
    timed(backward, "write 8 ahead", [&] { updateRows(table, ids, 8); });
    timed(backward, "adagrad", [&] {
      ops::embeddingTableUpdate(job, table, state, gradient, ids, std::nullopt, {},
                                {EmbeddingOptimizer::adagrad, 1e-6, 1e-8, 0, 0, 1, round + 1}, {});
    });
    timed(backward, "gradient", [&] {
      ops::embeddingBagBackward(job, gradient, {table, {}, {}}, ids, std::nullopt, {}, false);
    });
  }
  std::printf("1M x %3ld %-7s", static_cast<long>(cols), zipf ? "zipf" : "uniform");
  forward.print();
  std::printf("                ");
  backward.print();
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  std::printf("%d threads, %s; GB/s of looked-up rows, medians of %d rounds (best)\n", threadCount(), cpuBackend().isa,
              rounds);
  for (int64_t cols : {64, 128}) {
    Tensor table = Tensor::host<float>({rows, cols});
    parallelFor(table.count(), 1 << 16, Exec{}, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) table.data<float>()[i] = static_cast<float>(i % 1000) * 1e-3f;
    });
    for (bool zipf : {false, true}) measure(table, zipf, rounds);
  }
}
