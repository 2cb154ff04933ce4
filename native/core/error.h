// The one error type of the C++ side. binding/ turns it into a JavaScript TopknotError with the same code.
#pragma once
#include <cstdio>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace topknot {

#define TOPKNOT_ERROR_CODES(X)                                                                  \
  X(argument, "ERR_ARGUMENT") /* a value of the wrong type or outside its documented choices */ \
  X(shape, "ERR_SHAPE")       /* shapes that do not fit each other */                           \
  X(dtype, "ERR_DTYPE")       /* an element type that the operation does not take */            \
  X(range, "ERR_RANGE")       /* a number or id outside its range */                            \
  X(value, "ERR_VALUE")       /* NaN, infinite or negative where that has no meaning */         \
  X(device, "ERR_DEVICE")     /* no such device, or it lacks the operation */                   \
  X(deviceLost, "ERR_DEVICE_LOST")                                                              \
  X(format, "ERR_FORMAT") /* a file that is not what it should be */                            \
  X(io, "ERR_IO")         /* the operating system refused to read or write */                   \
  X(memory, "ERR_MEMORY")                                                                       \
  X(busy, "ERR_BUSY")             /* a second fit while one runs */                             \
  X(disposed, "ERR_DISPOSED")     /* use after dispose() */                                     \
  X(aborted, "ERR_ABORTED")       /* stopped by its AbortSignal */                              \
  X(dependency, "ERR_DEPENDENCY") /* built without an optional package */                       \
  X(internal, "ERR_INTERNAL")     /* a bug in topknot */

enum class ErrorCode {
#define X(name, text) name,
  TOPKNOT_ERROR_CODES(X)
#undef X
};

inline const char* text(ErrorCode code) {
  switch (code) {
#define X(name, string) \
  case ErrorCode::name: \
    return string;
    TOPKNOT_ERROR_CODES(X)
#undef X
  }
  return "ERR_INTERNAL";
}

/// What every function of core/, ops/ and models/ throws. The message is for the user: which argument, what
/// was expected, what came, what to do.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

/// Joins its arguments into one string: concat("k is ", 3).
template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::string out;
  auto add = [&out](const auto& part) {
    if constexpr (std::is_floating_point_v<std::remove_cvref_t<decltype(part)>>) {
      char digits[32];
      std::snprintf(digits, sizeof digits, "%.9g", static_cast<double>(part));
      out += digits;
    } else if constexpr (requires { std::to_string(part); }) {
      out += std::to_string(part);
    } else {
      out += part;
    }
  };
  (add(parts), ...);
  return out;
}

template <typename... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts) {
  throw Error(code, concat(parts...));
}

template <typename... Parts>
void require(bool ok, ErrorCode code, const Parts&... parts) {
  if (!ok) [[unlikely]]
    fail(code, parts...);
}

}  // namespace topknot
