#include "binding/read.h"

#include <cstring>

#include "backend/memory.h"
#include "binding/control.h"
#include "binding/environment.h"
#include "binding/handle.h"
#include "core/job_threads.h"
#include "core/stream.h"

namespace topknot::binding {
namespace {

constexpr size_t smallBytes = 64 << 10;  // copied at once: about 10 microseconds
constexpr size_t briefBytes = 1 << 20;

/// The elements as JavaScript sees them: 16-bit floats become float32, everything else is a plain copy.
Tensor forJs(const Tensor& given) {
  const Tensor t = copyTo(given, Device{});
  const bool half = t.dtype == DType::float16 || t.dtype == DType::bfloat16, copied = given.device() != t.device();
  if (copied && !half) return t;
  Tensor out = Tensor::host(half ? DType::float32 : t.dtype, t.shape);
  if (t.dtype == DType::float16) {
    for (int64_t i = 0; i < t.count(); ++i) out.data<float>()[i] = toFloat(t.data<Float16>()[i]);
  } else if (t.dtype == DType::bfloat16) {
    for (int64_t i = 0; i < t.count(); ++i) out.data<float>()[i] = toFloat(t.data<BFloat16>()[i]);
  } else {
    std::memcpy(out.buffer->data(), t.buffer->data(), t.bytes());
  }
  return out;
}

napi_typedarray_type arrayType(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return napi_float64_array;
    case DType::int8:
      return napi_int8_array;
    case DType::int32:
      return napi_int32_array;
    case DType::int64:
      return napi_bigint64_array;
    case DType::uint8:
    case DType::boolean:
      return napi_uint8_array;
    default:
      return napi_float32_array;
  }
}

/// A typed array over `t`'s own memory, where the runtime allows that; else a copy.
Napi::Value adopt(Napi::Env env, const Tensor& t) {
  auto* owner = new std::shared_ptr<Buffer>(t.buffer);
  napi_value buffer;
  const napi_status status = napi_create_external_arraybuffer(
      env, t.buffer->data(), t.bytes(),
      [](napi_env, void*, void* hint) {
        const std::unique_ptr<std::shared_ptr<Buffer>> last(static_cast<std::shared_ptr<Buffer>*>(hint));
        letGo(std::move(*last));
      },
      owner, &buffer);
  if (status != napi_ok) {  // Electron's sandbox refuses external memory
    delete owner;
    return toTypedArray(env, t);
  }
  napi_value array;
  if (napi_create_typedarray(env, arrayType(t.dtype), static_cast<size_t>(t.count()), buffer, 0, &array) != napi_ok)
    throw Napi::Error::New(env);
  return {env, array};
}

}  // namespace

Napi::Value read(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    auto deferred = Napi::Promise::Deferred::New(env);
    auto tensor = std::make_shared<Tensor>(TensorHandle::open(info[0], "tensor"));
    const bool ready = !tensor->pending || tensor->pending->done();
    if (ready && tensor->bytes() <= smallBytes && tensor->device().kind == Device::cpu) {
      settle(env, deferred, nullptr, [&] {
        if (tensor->pending) tensor->pending->wait();  // rethrows what went wrong
        return toTypedArray(env, *tensor);
      });
      return deferred.Promise();
    }
    auto channel = Environment::of(env).channel();
    auto control = std::make_shared<Control>(1);
    const auto bring = [=] {
      std::exception_ptr error;
      try {
        if (tensor->pending) tensor->pending->wait();
        *tensor = forJs(*tensor);
      } catch (...) {
        error = std::current_exception();
        *tensor = {};  // its memory is free before anyone hears of the error
      }
      channel->post([=](napi_env raw) {
        channel->release(raw, control);
        settle(raw, deferred, error, [&] { return adopt(raw, *tensor); });
      });
    };
    // What is soon copied is copied by the thread that computed it: that is one thread less to wake. A copy from a GPU
    // waits for all that is queued there, and would hold up what is still to be issued.
    const bool brief = tensor->bytes() <= briefBytes && tensor->pending && tensor->device().kind == Device::cpu;
    if (!brief || !tensor->pending->whenDone(bring)) startJob(1, bring);
    channel->hold(control);
    return deferred.Promise();
  });
}

Napi::Value readSync(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Tensor tensor = TensorHandle::open(info[0], "tensor");
    if (tensor.pending) tensor.pending->wait();
    return toTypedArray(info.Env(), copyTo(tensor, Device{}));
  });
}

}  // namespace topknot::binding
