// Finds the backend of a device and calls its kernels.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/tensor.h"

namespace topknot {

/// The CPU backend for the best instruction set of this machine, or the one that TOPKNOT_ISA names.
const Backend& cpuBackend();
/// Those this machine can run, best first: for tests, which run them all.
std::vector<const Backend*> cpuBackends();
/// Throws ERR_ARGUMENT for an instruction set that does not exist or that this machine lacks.
void useIsa(const std::string& isa);

/// Throws ERR_DEVICE, saying what was looked for and what to do, when there is none.
const Backend& backendOf(Device device);
/// 'cpu', 'cuda' (the first GPU), 'cuda:1', ..., or 'auto': the first GPU that can be used and is not lost, else the
/// CPU. Throws ERR_ARGUMENT for another name, ERR_DEVICE for a device that is not there.
Device deviceNamed(const std::string& name);

struct DeviceInfo {
  Device device;
  std::string name, isa;
  int64_t totalBytes;
  std::string driver;  // the CUDA version that the driver supports, '13.0'; empty for the CPU
};
/// The CPU, then the CUDA devices. Opens the CUDA plugin.
std::vector<DeviceInfo> devices();
/// Why there is no CUDA device; empty when there is one.
std::string cudaProblem();
/// Memory that could be allocated now. On a CUDA device it makes a context when the process has none there.
int64_t freeBytes(Device device);

/// Whether so many bytes may be placed on a GPU to stay there: up to `most`, a third of what is free unless given.
bool fits(int64_t bytes, Device device, std::optional<int64_t> most);

struct DeviceMemory {
  Device device;
  int64_t usedBytes, keptBytes;  // by tensors and work in flight; by the allocator, for the next ones
};
/// Of the CUDA devices that this process has used; never opens the plugin.
std::vector<DeviceMemory> cudaMemory();
/// Gives back what the allocators of those devices keep.
void trimCuda();

/// Turns a failed status into the Error it stands for.
void check(const Status& status);

template <typename Args>
using Slot = Status (*Backend::*)(const Exec&, const Args&);

/// Runs a slot of one table.
template <typename Args>
void run(const Backend& backend, Slot<Args> slot, const char* name, const Exec& exec, const Args& args) {
  require(backend.*slot != nullptr, ErrorCode::device, name, " is not available on device '", backend.name,
          "' yet: use device 'cpu'");
  check((backend.*slot)(exec, args));
}

/// Runs a kernel on a device: run(x.device(), &Backend::softmax, "softmax", exec, args). On CUDA it is issued in order
/// and this returns before it ends.
template <typename Args>
void run(Device device, Slot<Args> slot, const char* name, Exec exec, const Args& args) {
  exec.device = device.index;
  run(backendOf(device), slot, name, exec, args);
}

}  // namespace topknot
