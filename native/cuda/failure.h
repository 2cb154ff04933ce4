// A failed Status with a message.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "backend/status.h"
#include "core/error.h"

namespace topknot::cuda {

[[gnu::format(printf, 2, 3)]] inline Status failure(ErrorCode code, const char* format, ...) {
  Status status;
  status.code = static_cast<int32_t>(code);
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(status.message, sizeof status.message, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace topknot::cuda
