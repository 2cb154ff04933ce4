// Faults that tests plant in the emulated device: counters that JavaScript reaches too, when TOPKNOT_SIMT_FAULTS names
// a file of 32 bytes to map them to.
#pragma once
#include <atomic>
#include <cstdint>

namespace simt {

struct Faults {
  std::atomic<int64_t> allocation;  // the n-th allocation from now on fails, once; 0: none does
  std::atomic<int64_t> grid;        // the n-th launch from now on faults, once; 0: none does
  std::atomic<int64_t> recover;     // set to 1: lost devices work again
  std::atomic<int64_t> live;        // allocations that have not been released
};
static_assert(sizeof(Faults) == 32 && std::atomic<int64_t>::is_always_lock_free);

Faults& faults();

/// Counts down; true when it comes to the one that fails.
inline bool falls(std::atomic<int64_t>& counter) { return counter > 0 && counter.fetch_sub(1) == 1; }

}  // namespace simt
