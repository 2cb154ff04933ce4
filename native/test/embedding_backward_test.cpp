// Gradients and optimizer steps of embedding tables against float64, on every instruction set of this machine.
#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "cpu/kernels/embedding_rounding.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;

namespace {

template <typename F>
void forEachIsa(F&& f) {
  for (const Backend* backend : cpuBackends()) {
    useIsa(backend->isa);
    f();
  }
  useIsa(cpuBackends().front()->isa);
}

Tensor normals(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor t = Tensor::host<float>({rows, cols});
  Random random(seed, 0);
  for (float& x : t.span<float>()) x = static_cast<float>(random.normal());
  return t;
}

Tensor copyOf(const Tensor& t) {
  Job job;
  return ops::embeddingTableCopy(job, t);
}

/// Bags of up to 12 ids, one in three of them the same.
struct Problem {
  Tensor table, gradient, ids, offsets;
  BagOptions options;

  Problem(int64_t rows, int64_t cols, int64_t bags, BagMode mode, uint64_t seed) {
    Random random(seed, 1);
    std::vector<int32_t> all, ends{0};
    for (int64_t b = 0; b < bags; ++b) {
      for (uint64_t n = random.below(12); n > 0; --n) {
        all.push_back(static_cast<int32_t>(random.below(3) ? random.below(static_cast<uint64_t>(rows)) : rows / 2));
      }
      ends.push_back(static_cast<int32_t>(all.size()));
    }
    table = normals(rows, cols, seed);
    gradient = normals(bags, cols, seed + 1);
    ids = Tensor::host<int32_t>({static_cast<int64_t>(all.size())});
    std::copy(all.begin(), all.end(), ids.data<int32_t>());
    offsets = Tensor::host<int32_t>({bags + 1});
    std::copy(ends.begin(), ends.end(), offsets.data<int32_t>());
    options = {mode, std::nullopt, 1};
  }

  /// Row by row, in float64; rows that were not looked up are left out.
  std::map<int32_t, std::vector<double>> exact() const {
    std::map<int32_t, std::vector<double>> rows;
    const int64_t cols = table.cols();
    for (int64_t b = 0; b < gradient.rows(); ++b) {
      std::vector<int64_t> entries;
      for (int32_t i = offsets.data<int32_t>()[b]; i < offsets.data<int32_t>()[b + 1]; ++i) {
        if (ids.data<int32_t>()[i] != options.padding) entries.push_back(i);
      }
      for (int64_t i : entries) rows[ids.data<int32_t>()[i]].resize(static_cast<size_t>(cols));
      for (int64_t c = 0; c < cols; ++c) {
        const auto value = [&](int64_t i) { return table.data<float>()[ids.data<int32_t>()[i] * cols + c]; };
        const double g = gradient.data<float>()[b * cols + c];
        int64_t best = -1;
        for (int64_t i : entries) {
          if (options.mode == BagMode::sum) rows[ids.data<int32_t>()[i]][c] += g;
          if (options.mode == BagMode::mean) rows[ids.data<int32_t>()[i]][c] += g / static_cast<double>(entries.size());
          if (best < 0 || value(i) > value(best)) best = i;
        }
        if (options.mode == BagMode::max && best >= 0) rows[ids.data<int32_t>()[best]][c] += g;
      }
    }
    return rows;
  }
};

constexpr BagMode modes[] = {BagMode::sum, BagMode::mean, BagMode::max};
constexpr EmbeddingOptimizer optimizers[] = {EmbeddingOptimizer::sgd, EmbeddingOptimizer::adagrad,
                                             EmbeddingOptimizer::adam};

std::vector<Tensor> freshState(EmbeddingOptimizer optimizer, const Tensor& table) {
  if (optimizer == EmbeddingOptimizer::sgd) return {};
  if (optimizer == EmbeddingOptimizer::adagrad) return {Tensor::host<float>({table.rows()}, true)};
  return {Tensor::host<float>(table.shape, true), Tensor::host<float>(table.shape, true)};
}

bool near(double got, double expected) { return std::fabs(got - expected) <= 2e-5 * (1 + std::fabs(expected)); }

}  // namespace

TEST(gradientsMatchFloat64) {
  setThreadCount(4);
  for (int64_t cols : {1, 3, 4, 7, 8, 12, 17, 33, 64, 100, 129, 200}) {
    for (BagMode mode : modes) {
      const Problem p(37, cols, 80, mode, static_cast<uint64_t>(cols));
      const auto exact = p.exact();
      forEachIsa([&] {
        Job job;
        const RowGradients got =
            ops::embeddingBagBackward(job, p.gradient, {p.table, {}, {}}, p.ids, p.offsets, p.options, false);
        bool ok = got.rows.count() == static_cast<int64_t>(exact.size());
        int64_t g = 0;
        for (const auto& [row, values] : exact) {
          ok = ok && got.rows.data<int32_t>()[g] == row;
          for (int64_t c = 0; ok && c < cols; ++c) ok = near(got.values.data<float>()[g * cols + c], values[c]);
          ++g;
        }
        CHECK(ok);
        if (!ok)
          std::printf("  isa %s, %ld columns, mode %d\n", cpuBackend().isa, static_cast<long>(cols),
                      static_cast<int>(mode));
      });
    }
  }
}

TEST(optimizersMatchFloat64) {
  for (int64_t cols : {1, 5, 8, 19, 64}) {
    for (EmbeddingOptimizer optimizer : optimizers) {
      forEachIsa([&] {
        const Problem p(23, cols, 20, BagMode::mean, 9);
        const auto exact = p.exact();
        const Tensor table = copyOf(p.table);
        const std::vector<Tensor> state = freshState(optimizer, table);
        std::vector<double> x(table.data<float>(), table.data<float>() + table.count());
        std::vector<double> s(23), m(x.size()), v(x.size());
        Job job;
        bool ok = true;
        for (int t = 1; t <= 3; ++t) {
          const EmbeddingUpdateOptions update{optimizer, 0.1, 1e-4, 0.9, 0.99, 1, t};
          ops::embeddingTableUpdate(job, table, state, p.gradient, p.ids, p.offsets, p.options, update, {});
          for (const auto& [row, g] : exact) {
            double mean = 0;
            for (double y : g) mean += y * y / static_cast<double>(cols);
            s[row] += mean;
            for (int64_t c = 0; c < cols; ++c) {
              const size_t i = static_cast<size_t>(row * cols + c);
              m[i] = 0.9 * m[i] + 0.1 * g[c];
              v[i] = 0.99 * v[i] + 0.01 * g[c] * g[c];
              if (optimizer == EmbeddingOptimizer::sgd) x[i] -= 0.1 * g[c];
              else if (optimizer == EmbeddingOptimizer::adagrad) x[i] -= 0.1 * g[c] / (std::sqrt(s[row]) + 1e-4);
              else x[i] -= 0.1 * m[i] / (1 - std::pow(0.9, t)) / (std::sqrt(v[i] / (1 - std::pow(0.99, t))) + 1e-4);
            }
          }
        }
        for (size_t i = 0; i < x.size(); ++i) ok = ok && near(table.data<float>()[i], x[i]);
        CHECK(ok);
      });
    }
  }
}

TEST(threadsDoNotChangeBytes) {
  for (DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
    for (EmbeddingOptimizer optimizer : optimizers) {
      const Problem p(3000, 20, 9000, BagMode::sum, 3);
      forEachIsa([&] {
        std::vector<Tensor> results;
        for (int threads : {1, 7}) {
          setThreadCount(threads);
          Tensor table = Tensor::host(dtype, p.table.shape, true);
          const std::vector<Tensor> state = freshState(optimizer, table);
          Job job;
          for (int t = 1; t <= 2; ++t) {
            ops::embeddingTableUpdate(job, table, state, p.gradient, p.ids, p.offsets, p.options,
                                      {optimizer, 0.1, 1e-4, 0.9, 0.99, 5, t}, {});
          }
          results.push_back(table);
        }
        CHECK(std::memcmp(results[0].data<char>(), results[1].data<char>(), results[0].bytes()) == 0);
      });
    }
  }
  setThreadCount(4);
}

TEST(stochasticRoundingIsBetweenNeighboursAndFair) {
  Random random(1, 0);
  const auto check = [&](float x, auto kind) {
    using Half = decltype(kind);
    double sum = 0;
    float low = INFINITY, high = -INFINITY;
    constexpr uint32_t all = 1 << 16;
    for (uint32_t bits = 0; bits < all; bits += 8) {
      const float y = toFloat(roundStochastically(x, bits, Half{}));
      sum += y, low = std::min(low, y), high = std::max(high, y);
    }
    CHECK(low <= x && x <= high);
    CHECK(std::fabs(sum / (all / 8) - x) <= (high - low) * 2e-3 + std::fabs(x) * 1e-7);
  };
  for (int i = 0; i < 200; ++i) {
    const float x = static_cast<float>(random.normal() * std::pow(10.0, random.uniform() * 8 - 6));
    check(x, BFloat16{});
    if (std::fabs(x) < 60000) check(x, Float16{});
  }
  for (float exact : {0.0f, 1.0f, -0.5f, 65504.0f})
    CHECK(toFloat(roundStochastically(exact, 0xffff, Float16{})) == exact);
  CHECK(std::isnan(toFloat(roundStochastically(NAN, 0xffff, BFloat16{}))));
  CHECK(toFloat(roundStochastically(INFINITY, 0xffff, Float16{})) == INFINITY);
}

/// Every update of a 16-bit row is rounded by the bits of its row, column and step.
template <typename Half>
void checkRounding(int64_t cols) {
  const int64_t rows = 40;
  Random random(static_cast<uint64_t>(cols), 7);
  Tensor start = Tensor::host<Half>({rows, cols}), gradient = Tensor::host<float>({rows, cols});
  for (int64_t i = 0; i < start.count(); ++i) {
    const float x = static_cast<float>(random.normal() * std::pow(10.0, random.uniform() * 12 - 8));
    if constexpr (std::is_same_v<Half, Float16>) start.data<Half>()[i] = toFloat16(x);
    else start.data<Half>()[i] = toBFloat16(x);
    gradient.data<float>()[i] = static_cast<float>(random.normal() * std::pow(10.0, random.uniform() * 12 - 8));
  }
  start.data<Half>()[0] = {std::is_same_v<Half, Float16> ? uint16_t{0xfc00} : uint16_t{0xff80}};         // -infinity
  start.data<Half>()[cols - 1] = {std::is_same_v<Half, Float16> ? uint16_t{0x7e01} : uint16_t{0x7fc1}};  // NaN
  Tensor ids = Tensor::host<int32_t>({rows, 1});
  for (int32_t i = 0; i < rows; ++i) ids.data<int32_t>()[i] = i;
  forEachIsa([&] {
    const Tensor table = copyOf(start);
    Job job;
    ops::embeddingTableUpdate(job, table, {}, gradient, ids, std::nullopt, {},
                              {EmbeddingOptimizer::sgd, 1, 1e-8, 0, 0, 99, 5}, {});
    bool same = true;
    for (int64_t r = 0; r < rows; ++r) {
      const RowBits bits(99, static_cast<uint64_t>(r), 5);
      for (int64_t c = 0; c < cols; ++c) {
        uint32_t eight[8];
        bits.fill(c / 8 * 8, eight);
        const int64_t i = r * cols + c;
        const float updated = toFloat(start.data<Half>()[i]) - gradient.data<float>()[i];
        same &= table.data<Half>()[i].bits == roundStochastically(updated, eight[c % 8], Half{}).bits;
      }
    }
    CHECK(same);
    if (!same) std::printf("  isa %s, %ld columns\n", cpuBackend().isa, static_cast<long>(cols));
  });
}

TEST(halvesAreRoundedByTheBitsOfTheirPlace) {
  for (int64_t cols : {1, 7, 8, 17, 64, 100, 130}) checkRounding<Float16>(cols), checkRounding<BFloat16>(cols);
}

TEST(noEntriesAtAll) {
  forEachIsa([] {
    Job job;
    Tensor offsets = Tensor::host<int32_t>({3}, true);
    const EmbeddingRows table{normals(4, 3, 1), {}, {}};
    const RowGradients got = ops::embeddingBagBackward(job, normals(2, 3, 2), table, Tensor::host<int32_t>({0}),
                                                       offsets, {BagMode::max}, false);
    CHECK(got.rows.count() == 0 && got.values.rows() == 0 && got.values.cols() == 3);
  });
}

TEST_MAIN()
