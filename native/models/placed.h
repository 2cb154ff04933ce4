// The data of a fit where the kernels of its device read and write it.
#pragma once
#include <span>
#include <vector>

#include "backend/memory.h"
#include "backend/registry.h"
#include "core/csr.h"

namespace topknot {

/// A matrix on `device`: itself where it lies there, else a copy.
inline Csr copyTo(const Csr& m, Device device) {
  return {copyTo(m.indptr, device), copyTo(m.indices, device), copyTo(m.values, device), m.cols};
}

/// Numbers of the host beside a kernel: themselves on the CPU, on another device a copy, which lives as long as this.
/// What one side has changed goes to the other by send() and fetch(), which do nothing on the CPU.
template <typename T>
class Placed {
 public:
  Placed(std::span<T> host, Device device) : host_(host), device_(device) {
    if (device.kind == Device::cpu) return;
    copy_ = empty(device, DType::uint8, {static_cast<int64_t>(host.size_bytes())});
    send();
  }
  Placed(std::vector<T>& host, Device device) : Placed(std::span<T>(host), device) {}
  Placed(const Tensor& host, Device device) : Placed(host.span<T>(), device) {}

  T* data() const { return onCpu() ? host_.data() : copy_.data<T>(); }
  void send() const {
    if (!onCpu()) check(backendOf(device_).upload(exec(), copy_.data<T>(), host_.data(), host_.size_bytes()));
  }
  /// Waits for what the device has been given to do.
  void fetch() const {
    if (!onCpu()) check(backendOf(device_).download(exec(), host_.data(), copy_.data<T>(), host_.size_bytes()));
  }

 private:
  bool onCpu() const { return device_.kind == Device::cpu; }
  Exec exec() const { return {.device = device_.index}; }

  std::span<T> host_;
  Device device_;
  Tensor copy_;
};

}  // namespace topknot
