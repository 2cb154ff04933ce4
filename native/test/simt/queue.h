// cuda/queue.h for the emulator: work runs at once, on this thread. A fault of a kernel loses the device.
#pragma once
#include <mutex>
#include <vector>

#include "cuda/simt.h"
#include "test/simt/emulator.h"
#include "test/simt/faults.h"

namespace topknot::cuda {

class Queue {
 public:
  explicit Queue(const Exec& exec) : device_(exec.device) {
    if (simt::faults().recover.exchange(0)) LostDevices::all().clear();
    status_ = LostDevices::all().status(device_);
  }
  ~Queue() {
    for (void* data : workspaces_) simt::release(data);
  }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  const Status& status() const { return status_; }

  /// null after a failure.
  void* allocate(size_t bytes) {
    if (!status_.ok()) return nullptr;
    void* data = simt::allocate(bytes > 0 ? bytes : 1);
    if (!data) {
      fail(failure(ErrorCode::memory, "device 'cuda:%d': could not allocate %zu bytes: %zu of %zu are free", device_,
                   bytes, simt::deviceBytes - simt::liveBytes(), simt::deviceBytes));
    }
    return data;
  }

  template <typename T>
  T* workspace(int64_t count) {
    if (workspaces_.size() == maxWorkspaces) {
      fail(failure(ErrorCode::internal, "a kernel asked for more than %d workspaces", maxWorkspaces));
    }
    void* data = allocate(static_cast<size_t>(count > 0 ? count : 1) * sizeof(T));
    if (data) workspaces_.push_back(data);
    return static_cast<T*>(data);
  }

  void release(void* data) {
    if (std::erase(workspaces_, data) > 0) simt::release(data);
  }

  template <typename... Params>
  void launch(const char* name, void (*kernel)(Params...), Grid grid, int threads,
              std::type_identity_t<Params>... args) {
    if (!status_.ok()) return;
    if (!grid.fits()) return fail(failure(ErrorCode::range, "%s: too much for one launch on a GPU", name));
    const std::lock_guard lock(launching_);  // the size of dynamic shared memory is the emulator's, not the launch's
    try {
      if (grid.shared > grid.sharedLimit) {
        throw simt::Fault(std::string(name) + ": more dynamic shared memory than every GPU has");
      }
      simt::setDynamicShared(static_cast<size_t>(grid.shared));
      simt::launch(name, kernel, {static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y)},
                   static_cast<unsigned>(threads), args...);
    } catch (const simt::Fault& fault) {
      status_ = failure(ErrorCode::deviceLost, "device 'cuda:%d': %.200s", device_, fault.what());
      LostDevices::all().add(device_, fault.what());
    }
  }

  template <typename T>
  T fetch(const T* data) {
    if (!status_.ok()) return {};
    const simt::Access access;
    return *data;
  }
  template <typename T>
  T* zero() {
    T* data = workspace<T>(1);
    const simt::Access access;
    if (data) *data = T{};
    return data;
  }
  void fail(const Status& status) {
    if (status_.ok()) status_ = status;
  }

  int multiprocessors() const { return 2; }  // few, so that a slice holds several tiles
  int capability() const { return emulatedCapability; }
  static inline int emulatedCapability = 90;

 private:
  static inline std::mutex launching_;
  int device_;
  Status status_;
  std::vector<void*> workspaces_;
};

}  // namespace topknot::cuda
