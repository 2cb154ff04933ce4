// Tensors in JavaScript's hands: an External around a reference, its bytes told to V8, freed early by dispose().
#pragma once
#include <napi.h>

#include "core/resource.h"
#include "core/tensor.h"

namespace topknot::binding {

class TensorHandle {
 public:
  static Napi::Value wrap(Napi::Env env, Tensor tensor);
  /// Throws ERR_ARGUMENT for an External of somebody else, ERR_DISPOSED after dispose().
  static Tensor open(Napi::Value value, const char* name);
  /// True the first time.
  static bool dispose(Napi::Env env, Napi::Value value);

 private:
  static constexpr uint64_t magic_ = 0x746f706b6e6f7421;  // an External of another addon has not got it
  static TensorHandle* unwrap(Napi::Value value);
  void drop(Napi::Env env);

  uint64_t mark_ = magic_;
  Tensor tensor_;
};

/// A Resource in JavaScript's hands, in the same way.
class ResourceHandle {
 public:
  static Napi::Value wrap(Napi::Env env, std::shared_ptr<Resource> resource);
  /// Throws ERR_ARGUMENT for anything but a resource, ERR_DISPOSED after dispose().
  static std::shared_ptr<Resource> open(Napi::Value value, const char* name);
  /// True the first time.
  static bool dispose(Napi::Env env, Napi::Value value);

 private:
  static constexpr uint64_t magic_ = 0x746f706b6e6f7452;
  static ResourceHandle* unwrap(Napi::Value value);
  void drop(Napi::Env env);

  uint64_t mark_ = magic_;
  std::shared_ptr<Resource> resource_;
  int64_t told_ = 0;  // bytes that V8 was told of
};

/// Drops a reference. Returning many megabytes to the system takes milliseconds, so that is not done on this thread.
void letGo(std::shared_ptr<void> owner, size_t bytes) noexcept;
inline void letGo(std::shared_ptr<Buffer> buffer) noexcept {
  const size_t bytes = buffer->bytes();
  letGo(std::move(buffer), bytes);
}

/// A one-dimensional tensor with a copy of the array's elements. Throws ERR_ARGUMENT for a detached array.
Tensor copyTypedArray(Napi::TypedArray array, const char* name);
/// A new typed array with a copy; 16-bit floats arrive as a Float32Array, bool as a Uint8Array.
Napi::Value toTypedArray(Napi::Env env, const Tensor& tensor);

}  // namespace topknot::binding
