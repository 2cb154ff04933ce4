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
#include "test/matmul_case.h"
#include "test/simt/backend.h"

using namespace topknot;
using topknot::test::checkCase;
using topknot::test::multiply;
using topknot::test::Operand;
using topknot::test::Placed;
using Case = topknot::test::MatmulCase;

namespace {

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
