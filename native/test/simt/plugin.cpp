// A CUDA plugin without CUDA, for the tests of backend/cuda_loader.cpp: one emulated device, or what
// TOPKNOT_SIMT_PLUGIN says: old-abi, no-driver, old-driver, no-gpu, old-gpu or two-gpus.
#include <cstdlib>
#include <string_view>

#include "backend/cuda_plugin.h"
#include "test/simt/backend.h"
#include "test/simt/emulator.h"

namespace topknot::cuda {
namespace {

bool plays(std::string_view what) {
  const char* role = std::getenv("TOPKNOT_SIMT_PLUGIN");
  return role && role == what;
}

Status driver(CudaDriver* out) noexcept {
  *out = {13000, 13000, plays("two-gpus") ? 2 : 1};
  if (plays("no-driver")) out->driver = 0;
  if (plays("old-driver")) out->driver = 12020;
  if (plays("no-driver") || plays("old-driver")) {
    out->devices = 0;
    return failure(ErrorCode::device, "cudaGetDeviceCount: CUDA answered cudaErrorInsufficientDriver (35)");
  }
  if (plays("no-gpu")) {
    out->devices = 0;
    return failure(ErrorCode::device, "cudaGetDeviceCount: CUDA answered cudaErrorNoDevice (100)");
  }
  return {};
}

Status device(int32_t, CudaDeviceInfo* out) noexcept {
  *out = {"Emulated GPU", plays("old-gpu") ? 7 : 9, 0, 2, simt::deviceBytes};
  return {};
}

Status freeBytes(int32_t index, uint64_t* out) noexcept {
  *out = simt::deviceBytes - simt::liveBytes();
  return Queue(Exec{.device = index}).status();
}

/// As an allocator that keeps all it ever had.
Status memory(int32_t, CudaMemory* out) noexcept {
  out->used = simt::liveBytes();
  out->kept = simt::peakBytes() - out->used;
  return {};
}

Status trim(int32_t) noexcept {
  simt::forgetPeak();
  return {};
}

const Backend* backend(int32_t) noexcept {
  static const Backend table = emulatedBackend();
  return &table;
}

}  // namespace
}  // namespace topknot::cuda

extern "C" __attribute__((visibility("default"))) const topknot::CudaPlugin* topknot_cuda_plugin() {
  static topknot::CudaPlugin plugin{topknot::cudaAbi,         topknot::cuda::driver,  topknot::cuda::device,
                                    topknot::cuda::freeBytes, topknot::cuda::backend, topknot::cuda::memory,
                                    topknot::cuda::trim};
  plugin.abi = topknot::cuda::plays("old-abi") ? 1 : topknot::cudaAbi;
  return &plugin;
}
