#include "backend/registry.h"

namespace topknot {

void check(const Status& status) {
  if (!status.ok()) throw Error(static_cast<ErrorCode>(status.code), status.message);
}

const Backend& backendOf(Device device) {
  require(device.kind == Device::cpu, ErrorCode::device, "device '", text(device), "': the CUDA plugin is not loaded");
  return cpuBackend();
}

}  // namespace topknot
