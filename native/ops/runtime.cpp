// Settings of the process: threads and instruction set.
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

}  // namespace topknot::ops
