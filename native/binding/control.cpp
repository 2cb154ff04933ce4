#include "binding/control.h"

#include "binding/convert.h"
#include "binding/environment.h"

namespace topknot::binding {
namespace {

using Shared = std::shared_ptr<Control>;

/// The newest progress, and whether the JavaScript thread has been asked to fetch it.
struct Latest {
  std::mutex mutex;
  Progress progress;
  bool posted = false;
};

void report(const std::shared_ptr<Channel>& channel, const std::shared_ptr<Latest>& latest,
            const std::weak_ptr<Control>& weak, const Progress& progress) {
  {
    std::lock_guard lock(latest->mutex);
    latest->progress = progress;
    if (latest->posted) return;
    latest->posted = true;
  }
  channel->post([latest, weak](napi_env env) {
    Progress p;
    {
      std::lock_guard lock(latest->mutex);
      p = latest->progress;
      latest->posted = false;
    }
    const Shared control = weak.lock();
    napi_value listener = nullptr;
    if (!control || !control->listener || napi_get_reference_value(env, control->listener, &listener) != napi_ok)
      return;
    Napi::Function(env, listener)
        .Call({Napi::Number::New(env, p.done), Napi::Number::New(env, p.total), Napi::Number::New(env, p.loss)});
  });
}

}  // namespace

Shared Control::open(Napi::Value value) {
  if (value.IsUndefined()) return std::make_shared<Control>(1);
  if (!value.IsExternal()) expected(Path{"control"}, value, "a control");
  return *value.As<Napi::External<Shared>>().Data();
}

Napi::Value Control::create(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    auto control = std::make_shared<Control>(Js<int>::from(info[0], Path{"priority"}));
    if (info[1].IsFunction()) {
      napi_create_reference(info.Env(), info[1], 1, &control->listener);
      control->job.listen([channel = Environment::of(info.Env()).channel(), latest = std::make_shared<Latest>(),
                           weak = std::weak_ptr(control)](const Progress& p) { report(channel, latest, weak, p); });
    }
    return Napi::External<Shared>::New(info.Env(), new Shared(control), [](Napi::Env, Shared* s) { delete s; });
  });
}

Napi::Value Control::cancel(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    open(info[0])->job.cancel();
    return info.Env().Undefined();
  });
}

Napi::Value Control::close(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Shared control = open(info[0]);
    if (control->listener) napi_delete_reference(info.Env(), std::exchange(control->listener, nullptr));
    return info.Env().Undefined();
  });
}

}  // namespace topknot::binding
