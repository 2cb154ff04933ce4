#include "backend/registry.h"

#include <unistd.h>

#include <atomic>
#include <algorithm>
#include <cstdlib>
#include <cstring>
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

constexpr int32_t maxDevices = 64;
/// The tables of the CUDA devices in use. Finding one anew would ask the driver for all it knows of the device.
std::atomic<const Backend*> tables[maxDevices];

/// The number behind "cuda:"; -1 when there is none.
int32_t indexOf(const std::string& name) {
  const std::string digits = name.substr(std::min(name.size(), std::strlen("cuda:")));
  const bool number = !digits.empty() && digits.size() <= 4 && digits.find_first_not_of("0123456789") == digits.npos;
  const bool plain = number && (digits == "0" || digits[0] != '0');
  return name.starts_with("cuda:") && plain ? std::atoi(digits.c_str()) : -1;
}

/// A kernel of this process crashed there: it must have been in use.
bool lost(int32_t index) {
  uint64_t bytes = 0;
  return tables[index].load(std::memory_order_acquire) &&
         cuda().plugin->freeBytes(index, &bytes).code == static_cast<int32_t>(ErrorCode::deviceLost);
}

bool usable(int32_t index) {
  CudaDeviceInfo info{};
  return cuda().plugin->device(index, &info).ok() && info.major >= oldestCuda && !lost(index);
}

}  // namespace

void check(const Status& status) {
  if (!status.ok()) throw Error(static_cast<ErrorCode>(status.code), status.message);
}

const Backend& backendOf(Device device) {
  if (device.kind == Device::cpu) return cpuBackend();
  const bool known = device.index >= 0 && device.index < maxDevices;
  const Backend* backend = known ? tables[device.index].load(std::memory_order_acquire) : nullptr;
  if (backend) return *backend;
  backend = &cudaBackend(cuda(), device.index);
  tables[device.index].store(backend, std::memory_order_release);
  return *backend;
}

Device deviceNamed(const std::string& name) {
  if (name == "cpu") return {};
  if (name == "auto") {
    for (int32_t i = 0; i < cuda().devices; ++i) {
      if (usable(i)) return {Device::cuda, i};
    }
    return {};
  }
  const int32_t index = name == "cuda" ? 0 : indexOf(name);
  require(index >= 0, ErrorCode::argument,
          "device: expected 'cpu', 'cuda', 'cuda:0', 'cuda:1', ... or 'auto' but received '", name, "'");
  cudaDevice(cuda(), index);
  return {Device::cuda, index};
}

std::vector<DeviceInfo> devices() {
  const std::string name = procValue("/proc/cpuinfo", "model name");
  const int64_t memory = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  std::vector<DeviceInfo> out{{Device{}, name.empty() ? "CPU" : name, cpuBackend().isa, memory, ""}};
  for (int32_t i = 0; i < cuda().devices; ++i) {
    CudaDeviceInfo info{};
    check(cuda().plugin->device(i, &info));
    out.push_back({{Device::cuda, i},
                   info.name,
                   concat("sm_", info.major, info.minor),
                   static_cast<int64_t>(info.totalBytes),
                   cudaVersion(cuda().driver)});
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

bool fits(int64_t bytes, Device device, std::optional<int64_t> most) {
  return bytes <= (most ? *most : freeBytes(device) / 3);
}

std::vector<DeviceMemory> cudaMemory() {
  std::vector<DeviceMemory> out;
  for (int32_t i = 0; i < maxDevices; ++i) {
    if (!tables[i].load(std::memory_order_acquire)) continue;
    CudaMemory memory{};
    check(cuda().plugin->memory(i, &memory));
    out.push_back({{Device::cuda, i}, static_cast<int64_t>(memory.used), static_cast<int64_t>(memory.kept)});
  }
  return out;
}

void trimCuda() {
  for (int32_t i = 0; i < maxDevices; ++i) {
    if (tables[i].load(std::memory_order_acquire)) check(cuda().plugin->trim(i));
  }
}

}  // namespace topknot
