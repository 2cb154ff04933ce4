// Devices that were lost: a kernel crashed there. CUDA refuses all further work of the process; this answers it at
// once, with what was said first.
#pragma once
#include <cstdio>
#include <mutex>

#include "cuda/failure.h"

namespace topknot::cuda {

inline constexpr int maxDevices = 64;

class LostDevices {
 public:
  static LostDevices& all() {
    static LostDevices devices;
    return devices;
  }

  void add(int32_t device, const char* reason) {
    const std::lock_guard lock(mutex_);
    if (device < 0 || device >= maxDevices || reasons_[device][0]) return;
    std::snprintf(reasons_[device], sizeof reasons_[device], "%.159s", reason);  // what more there is may go
  }
  /// ERR_DEVICE_LOST for a lost device.
  Status status(int32_t device) {
    const std::lock_guard lock(mutex_);
    if (device < 0 || device >= maxDevices || !reasons_[device][0]) return {};
    return failure(ErrorCode::deviceLost, "device 'cuda:%d' was lost and can do no more in this process: %s", device,
                   reasons_[device]);
  }
  /// For tests: the emulator's devices recover.
  void clear() {
    const std::lock_guard lock(mutex_);
    for (auto& reason : reasons_) reason[0] = 0;
  }

 private:
  std::mutex mutex_;
  char reasons_[maxDevices][160] = {};
};

}  // namespace topknot::cuda
