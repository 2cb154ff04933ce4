// Embedding lookups against float64, on every instruction set of this machine.
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;

namespace {

template <typename T>
Tensor tensorOf(const std::vector<T>& values, Shape shape) {
  Tensor t = Tensor::host<T>(shape);
  std::copy(values.begin(), values.end(), t.data<T>());
  return t;
}

Tensor ints(const std::vector<int32_t>& values) { return tensorOf(values, {static_cast<int64_t>(values.size())}); }

template <typename F>
void forEachIsa(F&& f) {
  for (const Backend* backend : cpuBackends()) {
    useIsa(backend->isa);
    f();
  }
  useIsa(cpuBackends().front()->isa);
}

/// A table in some format, and its values as they are stored, in float64.
struct Table {
  EmbeddingRows rows;
  int64_t count, cols;
  std::vector<double> values;

  double at(int64_t r, int64_t c) const { return values[r * cols + c]; }
};

Table makeTable(DType dtype, int64_t rows, int64_t cols, uint64_t seed) {
  Random random(seed, 0);
  Table t{{}, rows, cols, std::vector<double>(rows * cols)};
  const bool nibbles = dtype == DType::uint8;
  t.rows.data = Tensor::host(dtype, {rows, nibbles ? cols / 2 : cols}, true);
  if (dtype == DType::int8 || nibbles) {
    t.rows.scale = Tensor::host<float>({rows});
    t.rows.bias = Tensor::host<float>({rows});
  }
  for (int64_t r = 0; r < rows; ++r) {
    const float scale = static_cast<float>(random.uniform()) * 0.1f, bias = static_cast<float>(random.normal());
    if (t.rows.scale) t.rows.scale->data<float>()[r] = scale, t.rows.bias->data<float>()[r] = bias;
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t i = r * cols + c;
      const float x = static_cast<float>(random.normal()) * (random.below(9) == 0 ? 1e-6f : 1.0f);
      switch (dtype) {
        case DType::float16:
          t.rows.data.data<Float16>()[i] = toFloat16(x);
          t.values[i] = toFloat(toFloat16(x));
          break;
        case DType::bfloat16:
          t.rows.data.data<BFloat16>()[i] = toBFloat16(x);
          t.values[i] = toFloat(toBFloat16(x));
          break;
        case DType::int8: {
          const int q = static_cast<int>(random.below(256)) - 128;
          t.rows.data.data<int8_t>()[i] = static_cast<int8_t>(q);
          t.values[i] = static_cast<double>(scale) * q + bias;
          break;
        }
        case DType::uint8: {
          const int q = static_cast<int>(random.below(16));
          t.rows.data.data<uint8_t>()[i / 2] |= static_cast<uint8_t>(c % 2 ? q << 4 : q);
          t.values[i] = static_cast<double>(scale) * q + bias;
          break;
        }
        default:
          t.rows.data.data<float>()[i] = x;
          t.values[i] = x;
      }
    }
  }
  return t;
}

/// Bags of many lengths, empty ones among them, with duplicates; the first `padding` id is among the entries.
struct Entries {
  std::vector<int32_t> ids, offsets{0};
  std::vector<float> weights;
};

Entries makeEntries(int64_t rows, int bags, uint64_t seed) {
  Random random(seed, 1);
  Entries e;
  for (int b = 0; b < bags; ++b) {
    for (uint64_t n = random.below(b % 7 == 0 ? 60 : 6); n > 0; --n) {
      e.ids.push_back(static_cast<int32_t>(random.below(2) ? random.below(3) % rows : random.below(rows)));
      e.weights.push_back(static_cast<float>(random.normal()));
    }
    e.offsets.push_back(static_cast<int32_t>(e.ids.size()));
  }
  return e;
}

constexpr DType dtypes[] = {DType::float32, DType::float16, DType::bfloat16, DType::int8, DType::uint8};
constexpr BagMode modes[] = {BagMode::sum, BagMode::mean, BagMode::max};

bool bagsCorrect(const Table& t, const Entries& e, const BagOptions& options, const Tensor& out) {
  for (size_t b = 0; b + 1 < e.offsets.size(); ++b) {
    for (int64_t c = 0; c < t.cols; ++c) {
      double sum = 0, absolute = 0, best = -1e300;
      int64_t count = 0;
      for (int64_t i = e.offsets[b]; i < e.offsets[b + 1]; ++i) {
        if (e.ids[i] == options.padding) continue;
        const double x = t.at(e.ids[i], c), w = options.weights ? e.weights[i] : 1.0;
        sum += w * x, absolute += std::fabs(w) * (std::fabs(x) + 4), best = std::max(best, x), ++count;
      }
      if (options.mode == BagMode::mean && count) sum /= static_cast<double>(count);
      if (options.mode == BagMode::max) sum = count ? best : 0;
      const double got = out.data<float>()[static_cast<int64_t>(b) * t.cols + c];
      if (!(std::fabs(got - sum) <= 0x1p-22 * absolute)) return false;
    }
  }
  return true;
}

}  // namespace

TEST(bagsMatchFloat64) {
  setThreadCount(4);
  for (DType dtype : dtypes) {
    for (int64_t cols :
         {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 20, 24, 31, 32, 33, 48, 63, 64, 66, 100, 128, 150, 200}) {
      if (dtype == DType::uint8 && cols % 2) continue;
      const Table table = makeTable(dtype, 41, cols, 1);
      const Entries e = makeEntries(41, 60, static_cast<uint64_t>(cols));
      for (BagMode mode : modes) {
        for (int64_t padding : {-1, 1}) {
          for (bool weighted : {false, true}) {
            if (weighted && mode != BagMode::sum) continue;
            BagOptions options{mode, std::nullopt, padding};
            if (weighted) options.weights = tensorOf(e.weights, {static_cast<int64_t>(e.weights.size())});
            forEachIsa([&] {
              Job job;
              const bool ok = bagsCorrect(
                  table, e, options, ops::embeddingBagRows(job, table.rows, ints(e.ids), ints(e.offsets), options, {}));
              CHECK(ok);
              if (!ok) {
                std::printf("  isa %s, %s, %ld columns, mode %d, padding %ld, weighted %d\n", cpuBackend().isa,
                            std::string(text(dtype)).c_str(), static_cast<long>(cols), static_cast<int>(mode),
                            static_cast<long>(padding), weighted);
              }
            });
          }
        }
      }
    }
  }
}

TEST(gatherIsExact) {
  for (DType dtype : dtypes) {
    for (int64_t cols : {1, 2, 3, 4, 6, 8, 13, 14, 16, 30, 64, 100, 130}) {
      if (dtype == DType::uint8 && cols % 2) continue;
      const Table table = makeTable(dtype, 30, cols, 2);
      const Entries e = makeEntries(30, 300, 5);
      forEachIsa([&] {
        Job job;
        const Tensor out = ops::gatherRows(job, table.rows, ints(e.ids), {});
        bool ok = out.rows() == static_cast<int64_t>(e.ids.size()) && out.cols() == cols;
        for (int64_t i = 0; ok && i < out.count(); ++i) {
          const double x = table.at(e.ids[i / cols], i % cols);
          const double got = out.dtype == DType::float16    ? toFloat(out.data<Float16>()[i])
                             : out.dtype == DType::bfloat16 ? toFloat(out.data<BFloat16>()[i])
                                                            : out.data<float>()[i];
          ok = std::fabs(got - x) <= (table.rows.scale ? 0x1p-21 * (std::fabs(x) + 4) : 0);
        }
        CHECK(ok);
      });
    }
  }
}

TEST(halfSpecialsSurvive) {
  const std::vector<float> specials{INFINITY, -INFINITY, 0.0f, -0.0f, 65504.0f, 6e-8f, -6.1e-5f, 1.0f};
  for (DType dtype : {DType::float16, DType::bfloat16}) {
    Tensor t = Tensor::host(dtype, {1, 8});
    for (int i = 0; i < 8; ++i) {
      if (dtype == DType::float16) t.data<Float16>()[i] = toFloat16(specials[i]);
      else t.data<BFloat16>()[i] = toBFloat16(specials[i]);
    }
    forEachIsa([&] {
      Job job;
      const Tensor out =
          ops::embeddingBagRows(job, {t}, tensorOf<int32_t>({0}, {1, 1}), std::nullopt, {BagMode::max}, {});
      for (int i = 0; i < 8; ++i) {
        const float expected =
            dtype == DType::float16 ? toFloat(toFloat16(specials[i])) : toFloat(toBFloat16(specials[i]));
        CHECK(out.data<float>()[i] == expected);
      }
    });
  }
}

TEST(maxPropagatesNan) {
  for (int at : {0, 1, 2}) {
    std::vector<float> values(3 * 9, 1.0f);
    values[at * 9 + 4] = NAN;
    forEachIsa([&] {
      Job job;
      const Tensor out = ops::embeddingBagRows(job, {tensorOf(values, {3, 9})}, tensorOf<int32_t>({0, 1, 2}, {1, 3}),
                                               std::nullopt, {BagMode::max}, {});
      for (int c = 0; c < 9; ++c) CHECK(c == 4 ? std::isnan(out.data<float>()[c]) : out.data<float>()[c] == 1.0f);
    });
  }
}

TEST(threadsDoNotChangeBytes) {
  const Table table = makeTable(DType::float32, 1000, 52, 3);
  const Entries e = makeEntries(1000, 20000, 4);
  for (BagMode mode : modes) {
    forEachIsa([&] {
      Job job;
      setThreadCount(1);
      const Tensor one = ops::embeddingBagRows(job, table.rows, ints(e.ids), ints(e.offsets), {mode}, {});
      setThreadCount(7);
      const Tensor many = ops::embeddingBagRows(job, table.rows, ints(e.ids), ints(e.offsets), {mode}, {});
      CHECK(std::memcmp(one.data<char>(), many.data<char>(), one.bytes()) == 0);
    });
  }
  setThreadCount(4);
}

TEST_MAIN()
