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
  napi_ref listener = nullptr;  // JavaScript thread only; freed when the job has ended

  /// The control in an External, or a new one (of query priority) for undefined.
  static std::shared_ptr<Control> open(Napi::Value value);
  /// control(priority, onProgress?): an External. onProgress(done, total, loss) gets the latest values.
  static Napi::Value create(const Napi::CallbackInfo& info);
  static Napi::Value cancel(const Napi::CallbackInfo& info);
};

}  // namespace topknot::binding
