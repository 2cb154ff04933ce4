// Opens the CUDA plugin and says why when CUDA cannot be used.
#pragma once
#include <string>

#include "backend/cuda_plugin.h"

namespace topknot {

/// Of the compute capability: what the kernels are compiled for.
inline constexpr int32_t oldestCuda = 8;

struct Cuda {
  const CudaPlugin* plugin = nullptr;  // null when no device can be used
  int32_t devices = 0;
  int32_t driver = 0;   // the version that the driver supports
  std::string problem;  // then: what was looked for, what was found, what to do
};

/// Where the plugin is looked for: at TOPKNOT_CUDA_PLUGIN, else beside the addon.
std::string cudaPluginPath();
Cuda loadCuda(const std::string& path);
/// loadCuda(cudaPluginPath()), once for the process.
const Cuda& cuda();

/// CUDA's way of writing versions, 13020, as '13.2'.
std::string cudaVersion(int32_t version);

/// Throws ERR_DEVICE unless device `index` is there and can run the kernels.
CudaDeviceInfo cudaDevice(const Cuda& cuda, int32_t index);
const Backend& cudaBackend(const Cuda& cuda, int32_t index);

}  // namespace topknot
