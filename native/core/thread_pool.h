// One pool for the whole process. Every parallelFor is a region; workers take chunks from the regions in flight,
// higher priority first, and look again after each chunk, so a query is never stuck behind a fit. The caller takes
// part, nobody spins, and the caller never waits for a worker that took no chunk.
#pragma once
#include <atomic>
#include <cstdint>
#include <type_traits>

namespace topknot {

/// How a piece of work runs: handed down from the job to the kernels.
struct Exec {
  const std::atomic<bool>* cancel = nullptr;
  int priority = 0;        // 0: long jobs such as a fit; 1: queries that someone waits for
  void* stream = nullptr;  // a cudaStream_t when the backend is CUDA
  int32_t device = 0;      // the CUDA device index

  bool cancelled() const { return cancel && cancel->load(std::memory_order_relaxed); }
};

/// Threads that a parallelFor may use, the caller included. Starts at TOPKNOT_THREADS or the cores allowed.
int threadCount();
inline constexpr int maxThreads = 256;
void setThreadCount(int threads);

namespace detail {
using Body = void (*)(void* context, int64_t begin, int64_t end, int slot);
void parallelFor(int64_t count, int64_t grain, Body body, void* context, const Exec& exec);
}  // namespace detail

/// Calls body(begin, end, slot) for chunks of at most `grain` that cover [0, count). A slot in [0, maxThreads) belongs
/// to one thread at a time within this call and gets its chunks in rising order: use it to index scratch memory, which
/// must not be sized by threadCount(), as that may change at any time. Chunk borders depend on count and grain alone;
/// results must not depend on the slot. Rethrows the first exception of a body. Stops early when exec is cancelled.
/// Inside a body, a nested call runs on the calling thread alone, unless the outer loop had just one chunk.
template <typename F>
void parallelFor(int64_t count, int64_t grain, const Exec& exec, F&& body) {
  using Function = std::remove_reference_t<F>;
  detail::parallelFor(
      count, grain,
      [](void* context, int64_t begin, int64_t end, int slot) { (*static_cast<Function*>(context))(begin, end, slot); },
      const_cast<void*>(static_cast<const void*>(&body)), exec);
}

}  // namespace topknot
