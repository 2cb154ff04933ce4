// What each JavaScript environment (the main thread, every worker) has of its own, and the way back to its thread.
#pragma once
#include <napi.h>

#include <functional>
#include <memory>
#include <mutex>
#include <set>

#include "binding/control.h"
#include "core/stream.h"

namespace topknot::binding {

/// Posts work to one JavaScript thread. Outlives its environment: posting to one that is gone drops the work.
class Channel {
 public:
  using Work = std::function<void(napi_env)>;

  /// Runs `work` on the JavaScript thread, soon; false when that environment is gone.
  bool post(Work work);
  /// Keeps the event loop alive while this job runs, and cancels it when the environment ends first. JavaScript
  /// thread only.
  void hold(std::shared_ptr<Control> control);
  void release(napi_env env, const std::shared_ptr<Control>& control);

 private:
  friend class Environment;
  void close();

  std::mutex mutex_;
  napi_threadsafe_function function_ = nullptr;
  bool closed_ = false;
  std::set<std::shared_ptr<Control>> running_;
};

class Environment {
 public:
  explicit Environment(Napi::Env env);
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  const std::shared_ptr<Channel>& channel() const { return channel_; }
  Stream& stream() { return stream_; }

  void setErrorClass(Napi::Function constructor) { errorClass_ = Napi::Persistent(constructor); }
  /// A TopknotError for `error`; must be called on the JavaScript thread.
  Napi::Value toJs(Napi::Env env, std::exception_ptr error);

 private:
  std::shared_ptr<Channel> channel_ = std::make_shared<Channel>();
  Stream stream_;
  Napi::FunctionReference errorClass_;
};

/// Runs f and turns a C++ exception into a JavaScript one.
template <typename F>
Napi::Value guarded(Napi::Env env, F&& f) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    napi_throw(env, Environment::of(env).toJs(env, std::current_exception()));
    return {};
  }
}

/// Ends a promise in every case: with what encode() makes of the result, or with `error` or what encode() throws.
template <typename F>
void settle(Napi::Env env, const Napi::Promise::Deferred& deferred, std::exception_ptr error, F&& encode) {
  if (!error) {
    try {
      deferred.Resolve(encode());
      return;
    } catch (const Napi::Error& e) {
      deferred.Reject(e.Value());
      return;
    } catch (...) {
      error = std::current_exception();
    }
  }
  deferred.Reject(Environment::of(env).toJs(env, error));
}

}  // namespace topknot::binding
