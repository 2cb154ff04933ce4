// Matrix products as the tests of the CUDA kernels ask for them, and their error against sums in float64.
#pragma once
#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

#include "core/random.h"
#include "test/check.h"
#include "test/placed.h"

namespace topknot::test {

/// A matrix in memory as an operand may hold it, and its numbers.
struct Operand {
  int64_t stride;
  bool transposed;
  RowFormat format;
  std::vector<float> values;
  std::vector<uint8_t> bytes;

  Operand(int64_t count, int64_t rows, int64_t cols, bool transposed, RowFormat format, uint64_t seed, int64_t pad = 3)
      : stride((transposed ? rows : cols) + pad), transposed(transposed), format(format) {
    Random random(seed, 0);
    const int64_t size = count * (transposed ? cols : rows) * stride;
    bytes.resize(static_cast<size_t>(size * (format == RowFormat::float32 ? 4 : 2)));
    for (int64_t i = 0; i < size; ++i) {
      float x = static_cast<float>(random.normal());
      if (format == RowFormat::float32) {
        reinterpret_cast<float*>(bytes.data())[i] = x;
      } else {
        const bool half = format == RowFormat::float16;
        const uint16_t bits = half ? toFloat16(x).bits : toBFloat16(x).bits;
        reinterpret_cast<uint16_t*>(bytes.data())[i] = bits;
        x = half ? toFloat(Float16{bits}) : toFloat(BFloat16{bits});
      }
      values.push_back(x);
    }
  }
  int64_t at(int64_t i, int64_t j) const { return transposed ? j * stride + i : i * stride + j; }
  MatmulOperand view(Placed& memory) const { return {memory.place(bytes), stride, transposed, format}; }
};

struct MatmulCase {
  int64_t m, n, k, batch = 1;
  bool aT = false, bT = false;
  float alpha = 1, beta = 0;
  RowFormat formatA = RowFormat::float32, formatB = RowFormat::float32;
  std::vector<float> bias{};
  Unary activation = Unary::none;
  int64_t pad = 3;       // behind the rows of the operands
  bool sharedB = false;  // one b for all products
};

inline std::vector<float> multiply(const Backend& backend, const Exec& exec, const MatmulCase& c, const Operand& a,
                                   const Operand& b) {
  std::vector<float> out(static_cast<size_t>(c.batch * c.m * (c.n + 1)), c.beta == 0 ? std::nanf("") : 0.5f);
  Placed memory(backend, exec);
  MatmulArgs args{.m = c.m,
                  .n = c.n,
                  .k = c.k,
                  .a = a.view(memory),
                  .b = b.view(memory),
                  .c = memory.place(out),
                  .cStride = c.n + 1,
                  .alpha = c.alpha,
                  .beta = c.beta,
                  .bias = c.bias.empty() ? nullptr : memory.place(c.bias),
                  .activation = c.activation};
  args.batch = {.rank = 1,
                .dims = {c.batch},
                .aStride = {a.stride * (c.aT ? c.k : c.m)},
                .bStride = {c.sharedB ? 0 : b.stride * (c.bT ? c.n : c.k)},
                .cStride = c.m * (c.n + 1)};
  check(backend.matmul(exec, args));
  memory.fetch(out, args.c);
  return out;
}

/// The error of each result, relative to the sum of its products' sizes.
inline double worstError(const MatmulCase& c, const Operand& a, const Operand& b, const std::vector<float>& got) {
  double worst = 0;
  for (int64_t p = 0; p < c.batch; ++p) {
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        double sum = c.beta * 0.5, size = std::fabs(sum) + 1e-30;
        for (int64_t k = 0; k < c.k; ++k) {
          const double x = a.values[p * a.stride * (c.aT ? c.k : c.m) + a.at(i, k)];
          const double y = b.values[(c.sharedB ? 0 : p) * b.stride * (c.bT ? c.n : c.k) + b.at(k, j)];
          sum += c.alpha * x * y;
          size += std::fabs(c.alpha * x * y);
        }
        const double error = std::fabs(got[(p * c.m + i) * (c.n + 1) + j] - sum) / size;
        worst = error <= worst ? worst : error;  // NaN too
      }
    }
  }
  return worst;
}

inline void checkCase(const MatmulCase& c,
                      const std::function<std::vector<float>(const Operand&, const Operand&)>& run) {
  const Operand a(c.batch, c.m, c.k, c.aT, c.formatA, 1, c.pad), b(c.batch, c.k, c.n, c.bT, c.formatB, 2, c.pad);
  const double worst = worstError(c, a, b, run(a, b));
  CHECK(worst <= 0x1p-19);
  if (!(worst <= 0x1p-19))
    std::printf("  %ld x %ld x %ld, transposed %d %d, formats %d %d: %g\n", c.m, c.n, c.k, c.aT, c.bT,
                static_cast<int>(c.formatA), static_cast<int>(c.formatB), worst);
}

}  // namespace topknot::test
