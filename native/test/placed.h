// Host data where a backend can read it.
#pragma once
#include <vector>

#include "backend/registry.h"

namespace topknot::test {

/// The pointers of a problem where the backend can read them: as they are on the CPU, copied to a device otherwise.
class Placed {
 public:
  Placed(const Backend& backend, const Exec& exec) : backend_(backend), exec_(exec) {}
  ~Placed() {
    for (void* data : copies_) check(backend_.release(exec_, data));
  }
  template <typename T>
  T* place(const std::vector<T>& host) {
    if (!backend_.allocate) return const_cast<T*>(host.data());
    void* data = nullptr;
    check(backend_.allocate(exec_, host.size() * sizeof(T), &data));
    copies_.push_back(data);
    check(backend_.upload(exec_, data, host.data(), host.size() * sizeof(T)));
    return static_cast<T*>(data);
  }
  template <typename T>
  void fetch(std::vector<T>& host, const T* data) {
    if (backend_.download) check(backend_.download(exec_, host.data(), data, host.size() * sizeof(T)));
  }

 private:
  const Backend& backend_;
  const Exec exec_;
  std::vector<void*> copies_;
};

}  // namespace topknot::test
