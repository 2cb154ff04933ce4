// The addon's entry point: exports a function for every row of ops.def and the few that handle JavaScript values.
#include <napi.h>

#include "binding/call.h"
#include "binding/control.h"
#include "binding/read.h"
#include "ops/ops.h"

namespace topknot::binding {
namespace {

Napi::Value setErrorClass(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).setErrorClass(info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

Napi::Value dispose(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return Napi::Boolean::New(env, TensorHandle::dispose(env, info[0]) || ResourceHandle::dispose(env, info[0]));
}

Napi::Object start(Napi::Env env, Napi::Object object) {
  env.SetInstanceData(new Environment(env));
  Exports out{env, object, {}};
  out.add("setErrorClass", setErrorClass, "(constructor: new (code: string, message: string) => Error): void");
  out.add("control", Control::create,
          "(priority: number, onProgress?: (done: number, total: number, loss: number) => void): Control");
  out.add("cancel", Control::cancel, "(control: Control): void");
  out.add("closeControl", Control::close, "(control: Control): void");
  out.add("dispose", dispose, "(object: Handle | Resource): boolean");
  out.add("read", read, "(tensor: Handle): Promise<TypedArray>");
  out.add("readSync", readSync, "(tensor: Handle): TypedArray");
#define ADD(name, parameters, anyDevice) \
  Call<&ops::name, decltype(&ops::name)>::add(out, #name, parameterNames(#parameters), anyDevice);
#define OP(R, name, parameters) ADD(name, parameters, false)
#define DEVICE_OP(R, name, parameters) ADD(name, parameters, true)
#include "ops/ops.def"
#undef OP
#undef DEVICE_OP
#undef ADD
  object.Set("types", out.types);
  return object;
}

}  // namespace

NODE_API_MODULE(topknot, start)

}  // namespace topknot::binding
