// The caller's side of a running job: cancels it, hears of its progress.
#pragma once
#include <napi.h>

#include <memory>
#include <mutex>

#include "core/job.h"

namespace topknot::binding {

class Channel;

struct Control {
  explicit Control(int priority) : job(priority) {}
  Job job;
  napi_ref listener = nullptr;  // JavaScript thread only; freed by close

  /// The control in an External, or a new one (of query priority) for undefined.
  static std::shared_ptr<Control> open(Napi::Value value);
  /// control(priority, onProgress?): an External. onProgress(done, total, loss) gets the latest values.
  static Napi::Value create(const Napi::CallbackInfo& info);
  static Napi::Value cancel(const Napi::CallbackInfo& info);
  /// Lets go of the listener, which otherwise lives as long as the environment: to be called when all is done, also
  /// when no job was started.
  static Napi::Value close(const Napi::CallbackInfo& info);
};

}  // namespace topknot::binding
