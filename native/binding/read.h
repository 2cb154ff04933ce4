// Bringing a tensor's elements to JavaScript.
#pragma once
#include <napi.h>

namespace topknot::binding {

/// A promise of a typed array. Large tensors are copied on a job thread, so the JavaScript thread only wraps them.
Napi::Value read(const Napi::CallbackInfo& info);
/// Waits for pending work, then copies: blocks.
Napi::Value readSync(const Napi::CallbackInfo& info);

}  // namespace topknot::binding
