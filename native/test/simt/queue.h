// cuda/queue.h for the emulator: work runs at once, on this thread. A fault of a kernel is thrown.
#pragma once
#include "cuda/simt.h"
#include "test/simt/emulator.h"

namespace topknot::cuda {

class Queue {
 public:
  explicit Queue(const Exec&) {}
  ~Queue() {
    for (void* data : workspaces_) simt::release(data);
  }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  const Status& status() const { return status_; }

  template <typename T>
  T* workspace(int64_t count) {
    workspaces_.push_back(simt::allocate(static_cast<size_t>(count > 0 ? count : 1) * sizeof(T)));
    return static_cast<T*>(workspaces_.back());
  }

  template <typename... Params>
  void launch(const char* name, void (*kernel)(Params...), Grid grid, int threads,
              std::type_identity_t<Params>... args) {
    if (grid.shared > maxDynamicShared) {
      throw simt::Fault(std::string(name) + ": more dynamic shared memory than every GPU has");
    }
    simt::setDynamicShared(static_cast<size_t>(grid.shared));
    simt::launch(name, kernel, {static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y)},
                 static_cast<unsigned>(threads), args...);
  }

  template <typename T>
  T fetch(const T* data) {
    return *data;
  }
  template <typename T>
  T* zero() {
    T* data = workspace<T>(1);
    *data = T{};
    return data;
  }
  void fail(const Status& status) {
    if (status_.ok()) status_ = status;
  }

  int multiprocessors() const { return 2; }  // few, so that a slice holds several tiles

 private:
  Status status_;
  std::vector<void*> workspaces_;
};

}  // namespace topknot::cuda
