// The matrix product of compute capability 9.0a (TOPKNOT_SM90A=1) under the SIMT emulator, and on the GPUs of this
// machine that have it, against sums in float64.
#include "cuda/sm90a.h"
#include "test/emulated.h"
#include "test/matmul_case.h"
#include "test/simt/faults.h"
#include "test/sm90a.h"

using namespace topknot;
using topknot::test::checkCase;
using topknot::test::emulate;
using topknot::test::multiply;
using topknot::test::near;
using topknot::test::Operand;
using topknot::test::Sm90a;
using Case = topknot::test::MatmulCase;

namespace {

std::vector<Case> cases(int64_t batch) {
  std::vector<Case> all;
  for (const RowFormat format : {RowFormat::float16, RowFormat::bfloat16}) {
    for (const int transposes : {0, 1, 2, 3}) {
      // Tails on every side, more steps than stages, several tiles for each block; narrow tiles; one step of depth.
      all.push_back({.m = 136, .n = 264, .k = 328, .batch = batch, .pad = 8});
      all.push_back({.m = 72, .n = 144, .k = 456, .batch = 3 * batch - 2, .alpha = -0.7f, .beta = 2.0f, .pad = 0});
      all.push_back({.m = 200, .n = 136, .k = 8, .batch = batch + 1, .pad = 16});
      all.back().sharedB = format == RowFormat::bfloat16;
      for (size_t i = all.size() - 3; i < all.size(); ++i) {
        all[i].formatA = all[i].formatB = format;
        all[i].aT = transposes & 1, all[i].bT = transposes & 2;
      }
    }
  }
  return all;
}

/// The same bits under every schedule, in what lies behind the rows of results too.
template <typename F>
std::vector<float> sameBits(F&& run) {
  const auto bits = emulate([&](const Backend& gpu, const Exec& exec) {
    const std::vector<float> out = run(gpu, exec);
    std::vector<uint32_t> copy(out.size());
    std::memcpy(copy.data(), out.data(), out.size() * sizeof(float));
    return copy;
  });
  std::vector<float> out(bits.size());
  std::memcpy(out.data(), bits.data(), bits.size() * sizeof(float));
  return out;
}

/// The name of the kernel that a product of 136 x 264 launches first.
std::string kernelOf(RowFormat format, int64_t pad) {
  const Case c{.m = 136, .n = 264, .k = 64, .formatA = format, .formatB = format, .pad = pad};
  const Operand a(1, c.m, c.k, false, format, 1, pad), b(1, c.k, c.n, false, format, 2, pad);
  std::string said;
  static const Backend backend = cuda::emulatedBackend();
  simt::faults().grid = 1;
  try {
    multiply(backend, {}, c, a, b);
  } catch (const Error& e) {
    said = e.what();
  }
  simt::faults().grid = 0;
  cuda::LostDevices::all().clear();
  return said;
}

}  // namespace

TEST(everyTransposeAndFormat) {
  const Sm90a on;
  for (const Case& c : cases(1)) {
    checkCase(c, [&](const Operand& a, const Operand& b) {
      return sameBits([&](const Backend& gpu, const Exec& exec) { return multiply(gpu, exec, c, a, b); });
    });
  }
}

TEST(finishesAsTheOtherKernelsDo) {
  Case c{.m = 136, .n = 264, .k = 72, .alpha = 0.3f, .beta = 0.5f, .pad = 8};
  c.formatA = c.formatB = RowFormat::bfloat16;
  for (int64_t j = 0; j < c.n; ++j) c.bias.push_back(0.25f * static_cast<float>(j % 7) - 1);
  const Operand a(1, c.m, c.k, false, c.formatA, 1, 8), b(1, c.k, c.n, false, c.formatB, 2, 8);
  for (const Unary f : {Unary::none, Unary::gelu}) {
    c.activation = f;
    const auto run = [&](const Backend& gpu, const Exec& exec) { return multiply(gpu, exec, c, a, b); };
    const std::vector<float> expected = emulate(run);
    const Sm90a on;
    CHECK(near(emulate(run), expected, 1e-6f));
  }
}

TEST(whichProductsTakeIt) {
  const auto takes = [](RowFormat format, int64_t pad) {
    return kernelOf(format, pad).find("matmulWgmma") != std::string::npos;
  };
  CHECK(!takes(RowFormat::bfloat16, 8));
  const Sm90a on;
  CHECK(takes(RowFormat::bfloat16, 8));
  CHECK(takes(RowFormat::float16, 0));
  CHECK(!takes(RowFormat::float32, 8));
  CHECK(!takes(RowFormat::bfloat16, 3));  // rows that are not of whole 16-byte pieces
  cuda::Queue::emulatedCapability = 80;
  const std::string said = kernelOf(RowFormat::bfloat16, 8);
  cuda::Queue::emulatedCapability = 90;
  CHECK(said.find("TOPKNOT_SM90A=1 asks for kernels of compute capability 9.0, but the GPU has 8.0") !=
        std::string::npos);
}

TEST(onTheGpusOfThisMachine) {  // by the kernels that TOPKNOT_SM90A asks for
  const std::vector<DeviceInfo> all = devices();
  for (size_t i = 1; i < all.size(); ++i) {
    const Backend& gpu = backendOf(all[i].device);
    if (std::string(gpu.isa) != "sm_90") continue;
    for (const Case& c : cases(40)) {  // enough tiles for every multiprocessor
      checkCase(c, [&](const Operand& a, const Operand& b) {
        return multiply(gpu, {.device = all[i].device.index}, c, a, b);
      });
    }
  }
}

TEST_MAIN()
