// The matrix product against sums in float64, on every instruction set of this machine.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "test/check.h"

using namespace topknot;

namespace {

template <typename F>
void forEachIsa(F&& f) {
  for (const Backend* b : cpuBackends()) f(*b);
}

float stored(RowFormat format, std::vector<uint16_t>& halves, std::vector<float>& floats, float x) {
  if (format == RowFormat::float32) return floats.push_back(x), x;
  halves.push_back(format == RowFormat::float16 ? toFloat16(x).bits : toBFloat16(x).bits);
  return format == RowFormat::float16 ? toFloat(Float16{halves.back()}) : toFloat(BFloat16{halves.back()});
}

/// A matrix in memory as an operand may hold it: transposed or not, rows further apart than they are long.
struct Operand {
  int64_t rows, cols, stride;
  bool transposed;
  RowFormat format;
  std::vector<float> floats, values;
  std::vector<uint16_t> halves;

  Operand(int64_t count, int64_t r, int64_t c, bool t, int64_t gap, RowFormat f, Random& random)
      : rows(r), cols(c), stride((t ? r : c) + gap), transposed(t), format(f) {
    // Nothing behind the last element: reading there is a fault under the address sanitizer.
    const int64_t size = std::max<int64_t>(0, count * (t ? c : r) * stride - gap);
    for (int64_t i = 0; i < size; ++i) {
      values.push_back(stored(f, halves, floats, static_cast<float>(random.normal())));
    }
    floats.shrink_to_fit(), halves.shrink_to_fit();
  }
  int64_t matrix() const { return (transposed ? cols : rows) * stride; }
  double at(int64_t of, int64_t i, int64_t j) const {
    return values[static_cast<size_t>(of * matrix() + (transposed ? j * stride + i : i * stride + j))];
  }
  MatmulOperand view() const {
    const void* data = format == RowFormat::float32 ? static_cast<const void*>(floats.data()) : halves.data();
    return {data, stride, transposed, format};
  }
};

struct Case {
  int64_t m, n, k;
  bool aT = false, bT = false;
  float alpha = 1, beta = 0;
  int64_t gap = 0, batch = 1;
  RowFormat format = RowFormat::float32;
  bool sharedB = false;
};

std::string text(const Case& c) {
  return concat(c.m, " x ", c.n, " x ", c.k, c.aT ? " aT" : "", c.bT ? " bT" : "", " alpha ", c.alpha, " beta ", c.beta,
                " gap ", c.gap, " batch ", c.batch, " format ", static_cast<int>(c.format));
}

struct Problem {
  Case c;
  Operand a, b;
  std::vector<float> start;

  Problem(const Case& wanted, Random random)
      : c(wanted),
        a(c.batch, c.m, c.k, c.aT, c.gap, c.format, random),
        b(c.sharedB ? 1 : c.batch, c.k, c.n, c.bT, c.gap, c.format, random),
        start(static_cast<size_t>(c.batch * c.m * (c.n + c.gap))) {
    for (float& x : start) x = static_cast<float>(random.normal());
  }
  explicit Problem(const Case& wanted, uint64_t seed = 1) : Problem(wanted, Random(seed, 0)) {}

  std::vector<float> multiply(const Backend& backend) const {
    std::vector<float> out = start;
    if (c.beta == 0) std::fill(out.begin(), out.end(), std::nanf(""));  // must not be read
    MatmulArgs args{
        .m = c.m, .n = c.n, .k = c.k, .a = a.view(), .b = b.view(), .c = out.data(), .cStride = c.n + c.gap};
    args.alpha = c.alpha, args.beta = c.beta;
    args.batch = {.rank = 1, .dims = {c.batch}, .aStride = {a.matrix()}, .bStride = {c.sharedB ? 0 : b.matrix()}};
    args.batch.cStride = c.m * (c.n + c.gap);
    run(backend, &Backend::matmul, "matmul", Exec{}, args);
    return out;
  }

  void check(const Backend& backend) const {
    const std::vector<float> out = multiply(backend);
    double worst = 0;
    for (int64_t of = 0; of < c.batch; ++of) {
      for (int64_t i = 0; i < c.m; ++i) {
        for (int64_t j = 0; j < c.n; ++j) {
          double sum = 0, size = 0;
          for (int64_t k = 0; k < c.k; ++k) {
            const double product = a.at(of, i, k) * b.at(c.sharedB ? 0 : of, k, j);
            sum += product, size += std::fabs(product);
          }
          const auto at = static_cast<size_t>((of * c.m + i) * (c.n + c.gap) + j);
          const double before = c.beta != 0 ? c.beta * static_cast<double>(start[at]) : 0;
          const double error = std::fabs(out[at] - (c.alpha * sum + before));
          const double allowed = 0x1p-21 * (std::fabs(c.alpha) * size + std::fabs(before)) + 1e-30;
          worst = std::max(worst, std::isnan(error) ? 1e30 : error / allowed);
        }
        for (int64_t j = c.n; j < c.n + c.gap; ++j) {  // what lies between the rows is not ours
          const auto at = static_cast<size_t>((of * c.m + i) * (c.n + c.gap) + j);
          if (c.beta == 0 ? !std::isnan(out[at]) : out[at] != start[at]) worst = 1e30;
        }
      }
    }
    CHECK(worst <= 1);
    if (worst > 1) std::printf("  %s isa %s: %g\n", text(c).c_str(), backend.isa, worst);
  }
};

}  // namespace

TEST(everyTransposeAndShape) {
  setThreadCount(4);
  Random random(3, 0);
  const int64_t sizes[] = {1, 2, 3, 5, 6, 7, 8, 12, 13, 16, 17, 31, 33, 48, 65, 100};
  const auto draw = [&] { return sizes[random.below(16)]; };
  for (uint64_t trial = 0; trial < 300; ++trial) {
    Case c{.m = draw(), .n = draw(), .k = draw(), .aT = trial % 2 > 0, .bT = trial / 2 % 2 > 0};
    c.alpha = trial % 3 ? 1.0f : -0.7f, c.beta = trial % 5 < 3 ? 0.0f : trial % 5 == 3 ? 1.0f : 0.3f;
    c.gap = trial % 7 == 0 ? 3 : 0;
    c.batch = trial % 11 == 0 ? 3 : 1, c.sharedB = trial % 22 == 0;
    c.format = trial % 13 == 0 ? RowFormat::bfloat16 : trial % 13 == 1 ? RowFormat::float16 : RowFormat::float32;
    const Problem p(c, trial);
    forEachIsa([&](const Backend& b) { p.check(b); });
  }
}

TEST(manyBlocksAndSlices) {
  for (int transposes = 0; transposes < 4; ++transposes) {
    const bool aT = transposes & 1, bT = transposes & 2;
    for (Case c :
         {Case{.m = 301, .n = 270, .k = 600}, Case{.m = 20, .n = 1100, .k = 300}, Case{.m = 17, .n = 19, .k = 5003},
          Case{.m = 30, .n = 40, .k = 2500, .alpha = 2, .beta = -1, .gap = 2, .batch = 2},
          Case{.m = 500, .n = 9, .k = 257}}) {
      c.aT = aT, c.bT = bT;
      const Problem p(c, 9);
      forEachIsa([&](const Backend& b) { p.check(b); });
    }
  }
}

TEST(emptySums) {
  forEachIsa([](const Backend& b) {
    Problem({.m = 5, .n = 7, .k = 0}).check(b);
    Problem({.m = 5, .n = 7, .k = 0, .beta = 2}).check(b);
    CHECK(Problem({.m = 0, .n = 7, .k = 3}).multiply(b).empty());
    CHECK(Problem({.m = 4, .n = 0, .k = 3}).multiply(b).empty());
    CHECK(Problem({.m = 4, .n = 2, .k = 3, .batch = 0}).multiply(b).empty());
  });
}

TEST(sameBytesAtAnyThreadCount) {
  forEachIsa([](const Backend& b) {
    for (const Case& c : {Case{.m = 200, .n = 300, .k = 700}, Case{.m = 11, .n = 23, .k = 9000, .aT = true},
                          Case{.m = 33, .n = 47, .k = 55, .bT = true, .beta = 0.5f, .batch = 20}}) {
      const Problem p(c);
      setThreadCount(1);
      const std::vector<float> one = p.multiply(b);
      for (int threads : {2, 3, 4, 16}) {
        setThreadCount(threads);
        const std::vector<float> many = p.multiply(b);
        CHECK(std::memcmp(one.data(), many.data(), one.size() * sizeof(float)) == 0);
      }
    }
    setThreadCount(4);
  });
}

TEST(batchesOverSeveralDimensions) {
  // [2, 1, 3] products of a with [1, 4, 3] of b: their common batch is [2, 4, 3].
  Random random(5, 0);
  const Operand a(6, 3, 5, false, 0, RowFormat::float32, random), b(12, 5, 2, false, 0, RowFormat::float32, random);
  forEachIsa([&](const Backend& backend) {
    std::vector<float> out(24 * 6);
    MatmulArgs args{.m = 3, .n = 2, .k = 5, .a = a.view(), .b = b.view(), .c = out.data(), .cStride = 2};
    args.batch = {.rank = 3, .dims = {2, 4, 3}, .aStride = {45, 0, 15}, .bStride = {0, 30, 10}, .cStride = 6};
    run(backend, &Backend::matmul, "matmul", Exec{}, args);
    double worst = 0;
    for (int64_t x = 0; x < 2; ++x) {
      for (int64_t y = 0; y < 4; ++y) {
        for (int64_t z = 0; z < 3; ++z) {
          for (int64_t e = 0; e < 6; ++e) {
            double sum = 0;
            for (int64_t k = 0; k < 5; ++k) sum += a.at(x * 3 + z, e / 2, k) * b.at(y * 3 + z, k, e % 2);
            worst = std::max(worst, std::fabs(sum - out[static_cast<size_t>(((x * 4 + y) * 3 + z) * 6 + e)]));
          }
        }
      }
    }
    CHECK(worst < 1e-5);
  });
}

TEST_MAIN()
