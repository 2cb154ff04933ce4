#include "backend/registry.h"

#include <unistd.h>

#include <fstream>

#include "backend/cuda_loader.h"

namespace topknot {
namespace {

/// The value of the first line "key : value" of a file in /proc; empty when there is none.
std::string procValue(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const size_t value = line.find_first_not_of(" \t", line.find(':') + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return "";
}

}  // namespace

void check(const Status& status) {
  if (!status.ok()) throw Error(static_cast<ErrorCode>(status.code), status.message);
}

const Backend& backendOf(Device device) {
  return device.kind == Device::cpu ? cpuBackend() : cudaBackend(cuda(), device.index);
}

std::vector<DeviceInfo> devices() {
  const std::string name = procValue("/proc/cpuinfo", "model name");
  const int64_t memory = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  std::vector<DeviceInfo> out{{Device{}, name.empty() ? "CPU" : name, cpuBackend().isa, memory}};
  for (int32_t i = 0; i < cuda().devices; ++i) {
    CudaDeviceInfo info{};
    check(cuda().plugin->device(i, &info));
    out.push_back(
        {{Device::cuda, i}, info.name, concat("sm_", info.major, info.minor), static_cast<int64_t>(info.totalBytes)});
  }
  return out;
}

std::string cudaProblem() { return cuda().problem; }

int64_t freeBytes(Device device) {
  if (device.kind == Device::cpu) {
    const std::string available = procValue("/proc/meminfo", "MemAvailable");  // "12345 kB"
    return available.empty() ? 0 : std::stoll(available) * 1024;
  }
  cudaDevice(cuda(), device.index);
  uint64_t bytes = 0;
  check(cuda().plugin->freeBytes(device.index, &bytes));
  return static_cast<int64_t>(bytes);
}

}  // namespace topknot
