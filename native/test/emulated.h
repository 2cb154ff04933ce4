// What the tests of CUDA kernels share: runs under every schedule of the emulator, comparison with the CPU.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "backend/registry.h"
#include "test/check.h"
#include "test/simt/backend.h"

namespace topknot::test {

/// The CPU with memory of its own, as a device has: copies are 64-byte aligned, which std::vector does not promise.
inline const Backend& alignedCpu() {
  static const Backend table = [] {
    Backend cpu = cpuBackend();
    cpu.allocate = [](const Exec&, size_t bytes, void** out) {
      *out = std::aligned_alloc(64, (bytes + 64) / 64 * 64);
      return Status{};
    };
    cpu.release = [](const Exec&, void* data) {
      std::free(data);
      return Status{};
    };
    cpu.upload = cpu.download = [](const Exec&, void* to, const void* from, size_t bytes) {
      if (bytes > 0) std::memcpy(to, from, bytes);
      return Status{};
    };
    return cpu;
  }();
  return table;
}

/// The answer of run(backend, exec) with the emulated GPU, which must be the same under every schedule.
template <typename F>
auto emulate(F&& run) {
  static const Backend backend = cuda::emulatedBackend();
  std::optional<decltype(run(backend, Exec{}))> first;
  simt::everySchedule([&] {
    auto result = run(backend, Exec{});
    if (first) CHECK(*first == result);
    first = std::move(result);
  });
  CHECK(simt::liveAllocations() == 0);
  return *std::move(first);
}

/// Whether all numbers lie within `tolerance` of the exact ones, as a share of the largest of those; NaN is near NaN.
inline bool near(const std::vector<float>& got, const std::vector<float>& exact, float tolerance) {
  if (got.size() != exact.size()) return false;
  float size = 0, worst = 0;
  for (const float x : exact) size = std::max(size, std::isfinite(x) ? std::fabs(x) : 0.0f);
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == exact[i] || (std::isnan(got[i]) && std::isnan(exact[i]))) continue;
    const float error = std::fabs(got[i] - exact[i]);
    worst = std::max(worst, error <= 3e38f ? error : 3e38f);
  }
  const bool ok = worst <= tolerance * size;
  if (!ok) std::printf("  error %g of %g\n", static_cast<double>(worst), static_cast<double>(size));
  return ok;
}

}  // namespace topknot::test
