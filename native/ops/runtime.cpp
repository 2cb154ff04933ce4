// Settings of the process: threads and instruction set; the devices.
#include "backend/registry.h"
#include "ops/ops.h"

namespace topknot::ops {

int64_t threads() { return threadCount(); }

void setThreads(int64_t threads) {
  require(threads >= 1 && threads <= 256, ErrorCode::range, "threads: expected 1 to 256 but received ", threads);
  setThreadCount(static_cast<int>(threads));
}

std::vector<std::string> isas() {
  std::vector<std::string> out;
  for (const Backend* b : cpuBackends()) out.emplace_back(b->isa);
  return out;
}

std::string isa() { return cpuBackend().isa; }

void useIsa(std::string isa) { topknot::useIsa(isa); }

std::vector<DeviceEntry> devices() {
  std::vector<DeviceEntry> out;
  for (const DeviceInfo& info : topknot::devices())
    out.push_back({text(info.device), info.name, info.isa, info.totalBytes,
                   info.driver.empty() ? std::nullopt : std::optional(info.driver)});
  return out;
}

std::string device(std::string name) { return text(deviceNamed(name)); }

std::string cudaProblem() { return topknot::cudaProblem(); }

}  // namespace topknot::ops
