// Makes a JavaScript function of a C++ one from its signature alone. What the first parameter is decides how it runs:
//   Job&     on a job thread; name(control, ...) returns a promise and nameSync(...) blocks the caller
//   Stream&  now, on the JavaScript thread, with the environment's stream to queue its work on
//   other    now, on the JavaScript thread
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "binding/control.h"
#include "binding/convert.h"
#include "binding/environment.h"
#include "core/job_threads.h"

namespace topknot::binding {

/// The names in "(Job& job, Tensor queries, std::optional<Tensor> norms)": job, queries, norms.
std::vector<std::string> parameterNames(const char* prototype);

/// The names of one function's arguments. Every environment that loads the addon sets them, while others are reading:
/// only the first does anything.
class ParameterNames {
 public:
  /// hostOperation: see Path.
  void set(std::vector<std::string> parameters, int64_t first, const char* hostOperation) {
    std::call_once(once_, [&] {
      names_.assign(parameters.begin() + first, parameters.end());
      hostOperation_ = hostOperation;
    });
  }
  const char* operator[](size_t i) const { return names_[i].c_str(); }
  Path path(size_t i) const { return {names_[i].c_str(), nullptr, hostOperation_}; }

 private:
  std::once_flag once_;
  std::vector<std::string> names_;
  const char* hostOperation_ = nullptr;
};

/// Everything that addon.cpp collects from ops.def: functions to export and lines of the TypeScript view.
struct Exports {
  Napi::Env env;
  Napi::Object object;
  std::string types;

  void add(const std::string& name, Napi::Value (*function)(const Napi::CallbackInfo&), const std::string& type) {
    object.Set(name, Napi::Function::New(env, function, name));
    types += "  " + name + type + ";\n";
  }
};

/// Decodes arguments `first`, `first` + 1, ... of a call.
template <typename... A>
std::tuple<std::decay_t<A>...> decode(const Napi::CallbackInfo& info, size_t first, const ParameterNames& names) {
  size_t i = 0;
  [[maybe_unused]] const auto next = [&]<typename T>(std::type_identity<T>) {
    const size_t at = i++;
    return Js<T>::from(info[first + at], names.path(at));
  };
  return {next(std::type_identity<std::decay_t<A>>{})...};  // braces: left to right
}

template <typename... A>
std::string parameterTypes(const ParameterNames& names) {
  std::string out;
  size_t i = 0;
  [[maybe_unused]] const auto add = [&](const std::string& type) {
    out += std::string(i ? ", " : "") + names[i] + ": " + type, ++i;
  };
  (add(Js<std::decay_t<A>>::type()), ...);
  return out;
}

template <typename R>
std::string resultType() {
  if constexpr (std::is_void_v<R>) return "void";
  else return Js<R>::type();
}

/// The result of a call, kept until the JavaScript thread can encode it.
template <typename R>
struct Result {
  std::optional<R> value;
  template <typename F>
  void set(F&& f) {
    value.emplace(f());
  }
  /// Once: the handles are then the only owners, even while the job's thread still winds up.
  Napi::Value encode(Napi::Env env) {
    const std::optional<R> last = std::exchange(value, std::nullopt);
    return Js<R>::to(env, *last);
  }
};
template <>
struct Result<void> {
  template <typename F>
  void set(F&& f) {
    f();
  }
  Napi::Value encode(Napi::Env env) { return env.Undefined(); }
};

template <auto function, typename Type>
struct Call;

template <auto function, typename R, typename... A>
struct Call<function, R (*)(A...)> {
  static inline ParameterNames names;

  static Napi::Value now(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      auto args = decode<A...>(info, 0, names);
      Result<R> result;
      result.set([&] { return std::apply([](auto&... a) { return function(std::move(a)...); }, args); });
      return result.encode(info.Env());
    });
  }
  static void add(Exports& out, const char* name, std::vector<std::string> parameters, bool anyDevice) {
    names.set(std::move(parameters), 0, anyDevice ? nullptr : name);
    out.add(name, now, "(" + parameterTypes<A...>(names) + "): " + resultType<R>());
  }
};

template <auto function, typename R, typename... A>
struct Call<function, R (*)(Stream&, A...)> {
  static inline ParameterNames names;

  static Napi::Value now(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      auto args = decode<A...>(info, 0, names);
      Stream& stream = Environment::of(info.Env()).stream();
      Result<R> result;
      result.set([&] { return std::apply([&](auto&... a) { return function(stream, std::move(a)...); }, args); });
      return result.encode(info.Env());
    });
  }
  static void add(Exports& out, const char* name, std::vector<std::string> parameters, bool anyDevice) {
    names.set(std::move(parameters), 1, anyDevice ? nullptr : name);
    out.add(name, now, "(" + parameterTypes<A...>(names) + "): " + resultType<R>());
  }
};

template <auto function, typename R, typename... A>
struct Call<function, R (*)(Job&, A...)> {
  static inline ParameterNames names;

  struct State {
    State(Napi::Env env, std::tuple<std::decay_t<A>...> a) : args(std::move(a)), deferred(env) {}
    std::optional<std::tuple<std::decay_t<A>...>> args;
    Result<R> result;
    std::exception_ptr error;
    Napi::Promise::Deferred deferred;
  };

  static Napi::Value async(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      auto control = Control::open(info[0]);
      auto state = std::make_shared<State>(info.Env(), decode<A...>(info, 1, names));
      auto channel = Environment::of(info.Env()).channel();
      startJob(control->job.exec().priority, [state, control, channel] {
        try {
          control->job.checkCancelled();
          state->result.set([&] {
            return std::apply([&](auto&... a) { return function(control->job, std::move(a)...); }, *state->args);
          });
          control->job.checkCancelled();
        } catch (...) {
          state->error = std::current_exception();
        }
        state->args.reset();  // inputs are free before the caller hears of the result
        channel->post([state, control, channel](napi_env raw) {
          const Napi::Env env(raw);
          channel->release(env, control);
          settle(env, state->deferred, state->error, [&] { return state->result.encode(env); });
        });
      });
      channel->hold(control);  // what the job posts is not run before this function returns
      return state->deferred.Promise();
    });
  }

  static Napi::Value sync(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      auto args = decode<A...>(info, 0, names);
      Job job(1);
      Result<R> result;
      result.set([&] { return std::apply([&](auto&... a) { return function(job, std::move(a)...); }, args); });
      return result.encode(info.Env());
    });
  }

  static void add(Exports& out, const char* name, std::vector<std::string> parameters, bool anyDevice) {
    names.set(std::move(parameters), 1, anyDevice ? nullptr : name);
    const std::string list = parameterTypes<A...>(names);
    out.add(
        name, async,
        "(control: Control | undefined" + (list.empty() ? "" : ", " + list) + "): Promise<" + resultType<R>() + ">");
    out.add(std::string(name) + "Sync", sync, "(" + list + "): " + resultType<R>());
  }
};

}  // namespace topknot::binding
