#include "binding/environment.h"

#include <new>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace topknot::binding {
namespace {

void callJs(napi_env env, napi_value, void*, void* data) {
  std::unique_ptr<Channel::Work> work(static_cast<Channel::Work*>(data));
  if (!env) return;  // the environment is going away: only free
  Napi::HandleScope scope(env);
  try {
    (*work)(env);
  } catch (const Napi::Error& e) {
    napi_fatal_exception(env, e.Value());
  }
}

}  // namespace

bool Channel::post(Work work) {
  auto* data = new Work(std::move(work));
  std::lock_guard lock(mutex_);
  if (!closed_ && napi_call_threadsafe_function(function_, data, napi_tsfn_nonblocking) == napi_ok) return true;
  delete data;
  return false;
}

void Channel::hold(std::shared_ptr<Control> control) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  if (running_.empty()) napi_ref_threadsafe_function(nullptr, function_);
  running_.insert(std::move(control));
}

void Channel::release(napi_env env, const std::shared_ptr<Control>& control) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  running_.erase(control);
  if (running_.empty()) napi_unref_threadsafe_function(env, function_);
}

void Channel::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  for (const auto& control : running_) control->job.cancel();
  running_.clear();
}

Environment::Environment(Napi::Env env) {
  napi_value name = Napi::String::New(env, "topknot");
  napi_status status = napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr,
                                                       callJs, &channel_->function_);
  if (status != napi_ok) throw Napi::Error::New(env, "topknot: could not create its thread-safe function");
  napi_unref_threadsafe_function(env, channel_->function_);
  // Added after the function was made, so it runs before a worker's teardown frees the function (Node 20 frees it
  // even while acquired).
  napi_add_env_cleanup_hook(
      env,
      [](void* data) {
        std::unique_ptr<std::shared_ptr<Channel>> channel(static_cast<std::shared_ptr<Channel>*>(data));
        (*channel)->close();
      },
      new std::shared_ptr<Channel>(channel_));
}

Napi::Value Environment::toJs(Napi::Env env, std::exception_ptr error) {
  const char* code = text(ErrorCode::internal);
  std::string message;
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    code = text(e.code());
    message = e.what();
  } catch (const std::bad_alloc&) {
    code = text(ErrorCode::memory);
    message = "out of memory";
  } catch (const std::system_error& e) {  // a thread that could not be started
    code = text(ErrorCode::memory);
    message = concat("the system is out of threads or memory: ", e.what());
  } catch (const std::exception& e) {
    message = e.what();
  }
  return errorClass_.New({Napi::String::New(env, code), Napi::String::New(env, message)});
}

}  // namespace topknot::binding
