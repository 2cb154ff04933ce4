#include "backend/cuda_loader.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

#include "backend/registry.h"

namespace topknot {
namespace {

Cuda unusable(std::string problem) { return {nullptr, 0, 0, std::move(problem) + ". Device 'cpu' does without."}; }

/// Why CUDA's own device count failed or is zero.
std::string driverProblem(const Status& status, const CudaDriver& driver) {
  if (driver.driver == 0) {
    return concat("no NVIDIA driver was found (", status.message, "): install one that supports CUDA ",
                  cudaVersion(driver.runtime));
  }
  if (driver.driver / 1000 < driver.runtime / 1000) {
    return concat("the NVIDIA driver supports CUDA ", cudaVersion(driver.driver), ", older than the ",
                  cudaVersion(driver.runtime), " that the plugin was built with (", status.message,
                  "): update the driver");
  }
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return concat("the NVIDIA driver shows no GPU (", status.ok() ? "it counts 0" : status.message,
                "): compare nvidia-smi; CUDA_VISIBLE_DEVICES is ",
                visible ? concat("'", std::string(visible), "'") : std::string("not set"));
}

}  // namespace

std::string cudaVersion(int32_t v) { return concat(v / 1000, ".", v % 1000 / 10); }

std::string cudaPluginPath() {
  const char* path = std::getenv("TOPKNOT_CUDA_PLUGIN");
  if (path && *path) return path;
  Dl_info self{};
  dladdr(reinterpret_cast<const void*>(&cudaPluginPath), &self);
  return std::filesystem::path(self.dli_fname ? self.dli_fname : "").parent_path() / "libtopknot_cuda.so";
}

Cuda loadCuda(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return unusable(concat("the CUDA plugin is not installed: looked for ", path,
                           ". It is built where nvcc is, by cmake -DTOPKNOT_CUDA=ON (docs/gpu.md)"));
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return unusable(concat("the CUDA plugin could not be opened: ", dlerror()));
  const auto entry = reinterpret_cast<CudaPluginEntry>(dlsym(library, cudaPluginEntryName));
  if (!entry) return unusable(concat(path, " is not topknot's CUDA plugin: it has no ", cudaPluginEntryName));
  const CudaPlugin* plugin = entry();
  if (plugin->abi != cudaAbi) {
    return unusable(concat("the CUDA plugin ", path, " belongs to another build of topknot: expected interface ",
                           cudaAbi, " but it has ", plugin->abi, ". Build the addon and the plugin together"));
  }
  CudaDriver driver{};
  const Status status = plugin->driver(&driver);
  if (!status.ok() || driver.devices == 0) return unusable(driverProblem(status, driver));
  return {plugin, driver.devices, driver.driver, {}};
}

const Cuda& cuda() {
  static const Cuda loaded = loadCuda(cudaPluginPath());
  return loaded;
}

CudaDeviceInfo cudaDevice(const Cuda& cuda, int32_t index) {
  const std::string name = concat("device '", text(Device{Device::cuda, index}), "': ");
  require(cuda.plugin, ErrorCode::device, name, cuda.problem);
  require(index >= 0 && index < cuda.devices, ErrorCode::device, name, "expected an index from 0 to ", cuda.devices - 1,
          ", for the ", cuda.devices, " CUDA devices of this machine");
  CudaDeviceInfo info{};
  check(cuda.plugin->device(index, &info));
  require(info.major >= oldestCuda, ErrorCode::device, name, info.name, " has compute capability ", info.major, ".",
          info.minor, " but the kernels need ", oldestCuda, ".0. Use another device, or 'cpu'");
  return info;
}

const Backend& cudaBackend(const Cuda& cuda, int32_t index) {
  cudaDevice(cuda, index);
  const Backend* backend = cuda.plugin->backend(index);
  require(backend, ErrorCode::device, "device '", text(Device{Device::cuda, index}), "' could not be read");
  return *backend;
}

}  // namespace topknot
