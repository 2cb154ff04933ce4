// The memory of the emulated GPU, as the checks of PTX wrappers take it (checkPtx, checkPtx90).
#pragma once
#include <cstring>
#include <type_traits>
#include <vector>

#include "test/simt/emulator.h"

namespace topknot::test {

struct EmulatedMemory {
  ~EmulatedMemory() {
    for (void* data : given) simt::release(data);
  }
  template <typename T>
  T* give(const std::vector<T>& host) {
    T* data = static_cast<T*>(simt::allocate(host.size() * sizeof(T)));
    const simt::Access access;
    std::memcpy(data, host.data(), host.size() * sizeof(T));
    given.push_back(data);
    return data;
  }
  template <typename T>
  void take(std::vector<T>& host, const T* data) {
    const simt::Access access;
    std::memcpy(host.data(), data, host.size() * sizeof(T));
  }
  template <typename... Params>
  void launch(void (*kernel)(Params...), unsigned threads, std::type_identity_t<Params>... args) {
    simt::launch("kernel", kernel, {}, threads, args...);
  }
  std::vector<void*> given;
};

}  // namespace topknot::test
