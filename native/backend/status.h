// How a kernel answers.
#pragma once
#include <cstdint>

namespace topknot {

/// Plain, so that it can cross the plugin's boundary. code is an ErrorCode, or -1 for success.
struct Status {
  int32_t code = -1;
  char message[252] = {};

  bool ok() const { return code < 0; }
};

}  // namespace topknot
