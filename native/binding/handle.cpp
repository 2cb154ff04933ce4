#include "binding/handle.h"

#include <cstring>

#include "core/job_threads.h"

namespace topknot::binding {

Napi::Value TensorHandle::wrap(Napi::Env env, Tensor tensor) {
  auto* handle = new TensorHandle;
  handle->tensor_ = std::move(tensor);
  napi_value value;
  const auto release = [](napi_env e, void* data, void*) {
    auto* h = static_cast<TensorHandle*>(data);
    h->drop(e);
    h->mark_ = 0;
    delete h;
  };
  if (napi_create_external(env, handle, release, nullptr, &value) != napi_ok) {
    delete handle;
    throw Napi::Error::New(env);
  }
  Napi::MemoryManagement::AdjustExternalMemory(env, static_cast<int64_t>(handle->tensor_.buffer->ownBytes()));
  return {env, value};
}

void TensorHandle::drop(Napi::Env env) {
  if (!tensor_.buffer) return;
  Napi::MemoryManagement::AdjustExternalMemory(env, -static_cast<int64_t>(tensor_.buffer->ownBytes()));
  letGo(std::move(tensor_.buffer));
  tensor_.buffer = nullptr;
  tensor_.pending = nullptr;
}

void letGo(std::shared_ptr<void> owner, size_t bytes) noexcept {
  constexpr size_t large = 4 << 20;
  if (bytes <= large) return;
  try {
    startJob(1, [last = std::move(owner)]() mutable { last.reset(); });
  } catch (const std::exception&) {  // no thread, or no memory for the request: then it has been freed here
  }
}

TensorHandle* TensorHandle::unwrap(Napi::Value value) {
  void* data = nullptr;
  if (napi_get_value_external(value.Env(), value, &data) != napi_ok || !data) return nullptr;
  auto* handle = static_cast<TensorHandle*>(data);
  return handle->mark_ == magic_ ? handle : nullptr;
}

Tensor TensorHandle::open(Napi::Value value, const char* name) {
  const TensorHandle* handle = unwrap(value);
  require(handle != nullptr, ErrorCode::argument, name, ": expected a Tensor but received a foreign object");
  require(handle->tensor_.buffer != nullptr, ErrorCode::disposed, name, ": this tensor has been disposed");
  return handle->tensor_;
}

bool TensorHandle::dispose(Napi::Env env, Napi::Value value) {
  TensorHandle* handle = unwrap(value);
  if (!handle || !handle->tensor_.buffer) return false;
  handle->drop(env);
  return true;
}

Napi::Value ResourceHandle::wrap(Napi::Env env, std::shared_ptr<Resource> resource) {
  auto* handle = new ResourceHandle;
  handle->told_ = static_cast<int64_t>(resource->bytes());
  handle->resource_ = std::move(resource);
  napi_value value;
  const auto release = [](napi_env e, void* data, void*) {
    auto* h = static_cast<ResourceHandle*>(data);
    h->drop(e);
    h->mark_ = 0;
    delete h;
  };
  if (napi_create_external(env, handle, release, nullptr, &value) != napi_ok) {
    delete handle;
    throw Napi::Error::New(env);
  }
  Napi::MemoryManagement::AdjustExternalMemory(env, handle->told_);
  return {env, value};
}

void ResourceHandle::drop(Napi::Env env) {
  if (!resource_) return;
  Napi::MemoryManagement::AdjustExternalMemory(env, -told_);
  letGo(std::move(resource_), static_cast<size_t>(told_));
  resource_ = nullptr;
}

ResourceHandle* ResourceHandle::unwrap(Napi::Value value) {
  void* data = nullptr;
  if (napi_get_value_external(value.Env(), value, &data) != napi_ok || !data) return nullptr;
  auto* handle = static_cast<ResourceHandle*>(data);
  return handle->mark_ == magic_ ? handle : nullptr;
}

std::shared_ptr<Resource> ResourceHandle::open(Napi::Value value, const char* name) {
  ResourceHandle* handle = unwrap(value);
  require(handle != nullptr, ErrorCode::argument, name, ": expected a native object of topknot");
  require(handle->resource_ != nullptr, ErrorCode::disposed, name, ": it has been disposed");
  // It may have grown since the last call.
  const int64_t grown = static_cast<int64_t>(handle->resource_->bytes()) - handle->told_;
  if (grown != 0) Napi::MemoryManagement::AdjustExternalMemory(value.Env(), grown);
  handle->told_ += grown;
  return handle->resource_;
}

bool ResourceHandle::dispose(Napi::Env env, Napi::Value value) {
  ResourceHandle* handle = unwrap(value);
  if (!handle || !handle->resource_) return false;
  handle->drop(env);
  return true;
}

namespace {

DType dtypeOfArray(napi_typedarray_type type, const char* name) {
  switch (type) {
    case napi_float32_array:
      return DType::float32;
    case napi_float64_array:
      return DType::float64;
    case napi_int8_array:
      return DType::int8;
    case napi_uint8_array:
    case napi_uint8_clamped_array:
      return DType::uint8;
    case napi_int32_array:
      return DType::int32;
    case napi_bigint64_array:
      return DType::int64;
    default:
      fail(ErrorCode::dtype, name,
           ": expected a Float32Array, Float64Array, Int8Array, Uint8Array, Int32Array or BigInt64Array");
  }
}

template <typename Array, typename From, typename To = From>
Napi::Value copyOut(Napi::Env env, const Tensor& t) {
  const size_t n = static_cast<size_t>(t.count());
  auto array = Array::New(env, n);
  To* out = array.Data();
  const From* in = t.data<From>();
  if constexpr (std::is_same_v<From, To>) {
    if (n) std::memcpy(out, in, n * sizeof(To));
  } else if constexpr (std::is_same_v<To, float>) {
    for (size_t i = 0; i < n; ++i) out[i] = toFloat(in[i]);
  } else {
    for (size_t i = 0; i < n; ++i) out[i] = static_cast<To>(in[i]);
  }
  return array;
}

}  // namespace

Tensor copyTypedArray(Napi::TypedArray array, const char* name) {
  // One call tells all: Napi::ArrayBuffer refuses shared memory, and a resizable buffer may change between two.
  napi_typedarray_type type;
  size_t length;
  void* data;
  napi_value buffer;
  if (napi_get_typedarray_info(array.Env(), array, &type, &length, &data, &buffer, nullptr) != napi_ok)
    throw Napi::Error::New(array.Env());
  bool detached = false;
  napi_is_detached_arraybuffer(array.Env(), buffer, &detached);
  require(!detached, ErrorCode::argument, name, ": this typed array is detached (it was transferred elsewhere)");
  Tensor t = Tensor::host(dtypeOfArray(type, name), {static_cast<int64_t>(length)});
  if (length) std::memcpy(t.buffer->data(), data, t.bytes());
  return t;
}

Napi::Value toTypedArray(Napi::Env env, const Tensor& t) {
  switch (t.dtype) {
    case DType::float32:
      return copyOut<Napi::Float32Array, float>(env, t);
    case DType::float64:
      return copyOut<Napi::Float64Array, double>(env, t);
    case DType::float16:
      return copyOut<Napi::Float32Array, Float16, float>(env, t);
    case DType::bfloat16:
      return copyOut<Napi::Float32Array, BFloat16, float>(env, t);
    case DType::int8:
      return copyOut<Napi::Int8Array, int8_t>(env, t);
    case DType::uint8:
      return copyOut<Napi::Uint8Array, uint8_t>(env, t);
    case DType::int32:
      return copyOut<Napi::Int32Array, int32_t>(env, t);
    case DType::int64:
      return copyOut<Napi::BigInt64Array, int64_t>(env, t);
    case DType::boolean:
      return copyOut<Napi::Uint8Array, bool, uint8_t>(env, t);
  }
  fail(ErrorCode::internal, "unknown dtype");
}

}  // namespace topknot::binding
