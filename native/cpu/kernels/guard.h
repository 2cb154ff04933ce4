// Kernels are noexcept towards their callers: guard() runs a body and turns what it throws into a Status.
#pragma once
#include <cstdio>
#include <new>

#include "backend/status.h"
#include "core/error.h"
#include "core/thread_pool.h"

namespace topknot {

template <typename F>
Status guard(F&& body) noexcept {
  Status status;
  const auto set = [&status](ErrorCode code, const char* message) {
    status.code = static_cast<int32_t>(code);
    std::snprintf(status.message, sizeof status.message, "%s", message);
  };
  try {
    body();
  } catch (const Error& e) {
    set(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    set(ErrorCode::memory, "a kernel could not allocate its working memory");
  } catch (const std::exception& e) {
    set(ErrorCode::internal, e.what());
  }
  return status;
}

}  // namespace topknot
