// The C boundary between the addon and libtopknot_cuda.so, which is opened on demand (backend/cuda_loader.cpp).
#pragma once
#include <cstdint>

#include "backend/backend.h"

namespace topknot {

namespace detail {
constexpr uint32_t hash(uint32_t h, const char* text) {
  for (; *text; ++text) h = (h ^ static_cast<uint32_t>(*text)) * 16777619u;
  return h;
}
constexpr uint32_t hash(uint32_t h, size_t number) { return (h ^ static_cast<uint32_t>(number)) * 16777619u; }

/// Changes with the table of kernels and with the layout of what crosses the boundary (FNV-1a).
constexpr uint32_t cudaAbi() {
  uint32_t h = hash(2166136261u, backendAbi);
#define KERNEL(stem, Args) h = hash(hash(h, #stem "(" #Args ")"), sizeof(Args));
#include "backend/kernels.def"
#undef KERNEL
  return hash(hash(hash(h, sizeof(Backend)), sizeof(Exec)), sizeof(Status));
}
}  // namespace detail

/// Both sides must have been built with the same number.
inline constexpr uint32_t cudaAbi = detail::cudaAbi();

/// Versions as CUDA writes them: 13020 is 13.2. driver is 0 where no driver is installed.
struct CudaDriver {
  int32_t driver, runtime, devices;
};

struct CudaDeviceInfo {
  char name[256];
  int32_t major, minor;  // compute capability
  int32_t multiprocessors;
  uint64_t totalBytes;
};

/// Device memory of this process in bytes: what allocations hold, and what the allocator keeps for the next ones.
struct CudaMemory {
  uint64_t used, kept;
};

/// All functions are noexcept and may be called from any thread.
struct CudaPlugin {
  uint32_t abi = cudaAbi;
  /// Fills what it can even when it fails.
  Status (*driver)(CudaDriver* out) = nullptr;
  Status (*device)(int32_t index, CudaDeviceInfo* out) = nullptr;
  /// Makes a CUDA context on the device when the process has none there: slow, and it takes memory.
  Status (*freeBytes)(int32_t index, uint64_t* out) = nullptr;
  /// The table of a device that `device` described; lives as long as the process.
  const Backend* (*backend)(int32_t index) = nullptr;
  Status (*memory)(int32_t index, CudaMemory* out) = nullptr;
  /// Gives what the allocator keeps back to the system, once the work issued so far is done.
  Status (*trim)(int32_t index) = nullptr;
};

/// The one function that the plugin exports. What it returns starts with an ABI number, whatever the rest looks like.
inline constexpr const char* cudaPluginEntryName = "topknot_cuda_plugin";
using CudaPluginEntry = const CudaPlugin* (*)();

}  // namespace topknot
