// The CUDA matrix product and Gram matrix under the SIMT emulator, and on the GPUs of this machine if there are any,
// against sums in float64.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>

#include "core/random.h"
#include "test/check.h"
#include "cuda/kernels/gram.cuh"
#include "test/placed.h"
#include "test/simt/backend.h"

using namespace topknot;
using topknot::test::Placed;

namespace {

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

struct Case {
  int64_t m, n, k, batch = 1;
  bool aT = false, bT = false;
  float alpha = 1, beta = 0;
  RowFormat formatA = RowFormat::float32, formatB = RowFormat::float32;
  std::vector<float> bias{};
  Unary activation = Unary::none;
  int64_t pad = 3;  // behind the rows of the operands
};

std::vector<float> multiply(const Backend& backend, const Exec& exec, const Case& c, const Operand& a,
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
                .bStride = {b.stride * (c.bT ? c.n : c.k)},
                .cStride = c.m * (c.n + 1)};
  check(backend.matmul(exec, args));
  memory.fetch(out, args.c);
  return out;
}

/// The error of each result, relative to the sum of its products' sizes.
double worstError(const Case& c, const Operand& a, const Operand& b, const std::vector<float>& got) {
  double worst = 0;
  for (int64_t p = 0; p < c.batch; ++p) {
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        double sum = c.beta * 0.5, size = std::fabs(sum) + 1e-30;
        for (int64_t k = 0; k < c.k; ++k) {
          const double x = a.values[p * a.stride * (c.aT ? c.k : c.m) + a.at(i, k)];
          const double y = b.values[p * b.stride * (c.bT ? c.n : c.k) + b.at(k, j)];
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

void checkCase(const Case& c, const std::function<std::vector<float>(const Operand&, const Operand&)>& run) {
  const Operand a(c.batch, c.m, c.k, c.aT, c.formatA, 1, c.pad), b(c.batch, c.k, c.n, c.bT, c.formatB, 2, c.pad);
  const double worst = worstError(c, a, b, run(a, b));
  CHECK(worst <= 0x1p-19);
  if (!(worst <= 0x1p-19))
    std::printf("  %ld x %ld x %ld, transposed %d %d, formats %d %d: %g\n", c.m, c.n, c.k, c.aT, c.bT,
                static_cast<int>(c.formatA), static_cast<int>(c.formatB), worst);
}

template <typename F>
auto emulate(F&& run) {
  static const Backend backend = cuda::emulatedBackend();
  std::optional<decltype(run(backend, Exec{}))> first;
  for (const size_t s : {0, 2}) {
    simt::setSchedule(simt::schedules()[s]);
    auto result = run(backend, Exec{});
    const size_t bytes = result.size() * sizeof result[0];
    if (first && bytes > 0) CHECK(std::memcmp(first->data(), result.data(), bytes) == 0);
    first = std::move(result);
  }
  simt::setSchedule({});
  CHECK(simt::liveAllocations() == 0);
  return *first;
}

std::vector<Case> cases() {
  std::vector<Case> all{{1, 1, 1}, {64, 64, 32}, {65, 3, 33}, {30, 70, 100, 2}, {5, 6, 0}, {0, 3, 2}};
  for (const RowFormat format : {RowFormat::float16, RowFormat::bfloat16}) {
    all.push_back({.m = 20, .n = 30, .k = 40, .formatA = format, .formatB = format});
    all.push_back({.m = 20, .n = 30, .k = 40, .formatB = format});
    // In whole 16-byte pieces: small tiles, then large ones.
    all.push_back({.m = 72, .n = 40, .k = 136, .batch = 3, .formatA = format, .formatB = format, .pad = 8});
    all.push_back({.m = 136, .n = 144, .k = 72, .formatA = format, .formatB = format, .pad = 0});
  }
  for (size_t i = all.size(); i-- > 0;) {
    for (const int transposes : {1, 2, 3}) {
      Case c = all[i];
      c.aT = transposes & 1, c.bT = transposes & 2;
      c.alpha = -0.7f, c.beta = transposes == 2 ? 0.0f : 2.0f;
      all.push_back(c);
    }
  }
  return all;
}

/// What bias and activation make of a product, next to the same product without them.
void checkFinish(const std::function<std::vector<float>(const Case&, const Operand&, const Operand&)>& run) {
  for (Case c : {Case{.m = 70, .n = 66, .k = 20, .batch = 2}, Case{.m = 5, .n = 3, .k = 9, .alpha = 2, .beta = 0.5f}}) {
    const Operand a(c.batch, c.m, c.k, false, c.formatA, 1), b(c.batch, c.k, c.n, false, c.formatB, 2);
    std::vector<float> expected = run(c, a, b);
    for (int64_t j = 0; j < c.n; ++j) c.bias.push_back(0.25f * static_cast<float>(j % 7) - 1);
    for (size_t i = 0; i < expected.size(); ++i) {
      if (i % (c.n + 1) < static_cast<size_t>(c.n)) expected[i] += c.bias[i % (c.n + 1)];
    }
    for (const Unary f : {Unary::none, Unary::relu, Unary::gelu, Unary::geluTanh, Unary::sigmoid, Unary::tanh,
                          Unary::silu, Unary::exp, Unary::log, Unary::sqrt}) {
      c.activation = f;
      const std::vector<float> got = run(c, a, b);
      std::vector<float> wanted(expected.size());
      check(cpuBackend().unary({}, {f, expected.data(), static_cast<int64_t>(expected.size()), wanted.data()}));
      for (size_t i = 0; i < got.size(); ++i) {
        if (i % (c.n + 1) == static_cast<size_t>(c.n) || (std::isnan(got[i]) && std::isnan(wanted[i]))) continue;
        CHECK(std::fabs(got[i] - wanted[i]) <= 2e-6f * std::fabs(wanted[i]) + 1e-7f);
      }
    }
  }
}

std::vector<float> gramOn(const Backend& backend, const Exec& exec, const std::vector<float>& m, int64_t rows,
                          int64_t cols) {
  std::vector<float> out(static_cast<size_t>(cols * cols));
  Placed memory(backend, exec);
  const GramArgs args{{memory.place(m), rows, cols}, 0.5f, memory.place(out)};
  check(backend.gram(exec, args));
  memory.fetch(out, args.out);
  return out;
}

}  // namespace

TEST(everyTransposeAndFormat) {
  for (const Case& c : cases()) {
    checkCase(c, [&](const Operand& a, const Operand& b) {
      return emulate([&](const Backend& gpu, const Exec& exec) { return multiply(gpu, exec, c, a, b); });
    });
  }
}

TEST(biasAndActivation) {
  checkFinish([](const Case& c, const Operand& a, const Operand& b) {
    return emulate([&](const Backend& gpu, const Exec& exec) { return multiply(gpu, exec, c, a, b); });
  });
}

TEST(gramInSlices) {
  constexpr int64_t rows = cuda::gramSliceRows + 100, cols = 10;
  Random random(3, 0);
  std::vector<float> m;
  for (int64_t i = 0; i < rows * cols; ++i) m.push_back(static_cast<float>(random.normal()));
  for (const int64_t count : {int64_t{0}, int64_t{7}, rows}) {
    const auto got = emulate([&](const Backend& gpu, const Exec& exec) { return gramOn(gpu, exec, m, count, cols); });
    for (int64_t i = 0; i < cols; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        double sum = 0, size = 0;
        for (int64_t r = 0; r < count; ++r) {
          const double product = 0.5 * m[r * cols + i] * m[r * cols + j];
          sum += product, size += std::fabs(product);
        }
        CHECK(std::fabs(got[i * cols + j] - sum) <= 0x1p-17 * size);  // thousands of sums in float32
      }
    }
  }
}

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Exec exec{.device = all[i].device.index};
    checkFinish([&](const Case& c, const Operand& a, const Operand& b) {
      return multiply(backendOf(all[i].device), exec, c, a, b);
    });
    std::vector<Case> wanted = cases();
    wanted.push_back({.m = 500, .n = 700, .k = 1000});
    for (const Case& c : wanted) {
      checkCase(c,
                [&](const Operand& a, const Operand& b) { return multiply(backendOf(all[i].device), exec, c, a, b); });
    }
  }
}

TEST_MAIN()
