#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace topknot {
namespace {

struct Region {
  int64_t count, grain;
  detail::Body body;
  void* context;
  const Exec* exec;
  int maxSlots;
  std::atomic<int64_t> next{0};  // first index not yet taken
  std::atomic<bool> failed{false};
  int helpers = 0;  // workers inside; guarded by Pool::mutex
  std::condition_variable left;
  std::exception_ptr error;

  bool open() const {
    return next.load(std::memory_order_relaxed) < count && !failed.load(std::memory_order_relaxed) &&
           !exec->cancelled();
  }
};

thread_local bool insideRegion = false;

class Pool {
 public:
  static Pool& get() {
    static Pool* pool = new Pool;  // never destroyed: workers may outlive static destructors
    return *pool;
  }

  int threads() const { return threads_.load(std::memory_order_relaxed); }

  void setThreads(int threads) { threads_ = std::clamp(threads, 1, maxThreads); }

  void run(Region& region) {
    const int64_t chunks = (region.count + region.grain - 1) / region.grain;
    const int helpers = static_cast<int>(std::min<int64_t>(chunks, region.maxSlots) - 1);
    bool spare;
    {
      std::lock_guard lock(mutex_);
      while (started_ < helpers && startWorker()) {
      }
      const auto behind = [&](const Region* r) { return r->exec->priority < region.exec->priority; };
      regions_.insert(std::find_if(regions_.begin(), regions_.end(), behind), &region);
      ++epoch_;
      spare = started_ > helpers;
    }
    if (spare) {
      wake_.notify_all();  // a single wake-up could go to a worker whose slot this region does not admit
    } else {
      for (int i = 0; i < helpers; ++i) wake_.notify_one();
    }
    insideRegion = true;
    while (region.open() && chunk(region, 0)) {
    }
    insideRegion = false;
    std::unique_lock lock(mutex_);
    regions_.erase(std::find(regions_.begin(), regions_.end(), &region));
    region.left.wait(lock, [&] { return region.helpers == 0; });
  }

 private:
  Pool() {
    const char* wanted = std::getenv("TOPKNOT_THREADS");
    int threads = wanted ? std::atoi(wanted) : 0;
    if (threads <= 0) {
      cpu_set_t set;
      threads = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                            : static_cast<int>(std::thread::hardware_concurrency());
    }
    setThreads(threads);
  }

  /// False when the system has no thread for us: the loop runs on those that there are, its caller at least.
  bool startWorker() {
    try {
      std::thread(&Pool::work, this, started_ + 1).detach();
    } catch (const std::system_error&) {
      return false;
    }
    ++started_;
    return true;
  }

  /// Takes and runs the next chunk; false when none was left.
  static bool chunk(Region& region, int slot) {
    const int64_t begin = region.next.fetch_add(region.grain, std::memory_order_relaxed);
    if (begin >= region.count) return false;
    runChunk(region, begin, slot);
    return true;
  }

  static void runChunk(Region& region, int64_t begin, int slot) {
    try {
      region.body(region.context, begin, std::min(begin + region.grain, region.count), slot);
    } catch (...) {
      if (!region.failed.exchange(true)) region.error = std::current_exception();
    }
  }

  /// The region that needs this worker most: highest priority, then fewest helpers. Its first chunk is taken
  /// under the lock, so a worker that joins always has work.
  Region* join(int slot, int64_t* begin) {
    for (;;) {
      Region* best = nullptr;
      for (Region* r : regions_) {
        if (slot >= r->maxSlots || !r->open()) continue;
        if (best && r->exec->priority < best->exec->priority) break;
        if (!best || r->helpers < best->helpers) best = r;
      }
      if (!best) return nullptr;
      *begin = best->next.fetch_add(best->grain, std::memory_order_relaxed);
      if (*begin >= best->count) continue;  // others took its last chunk meanwhile: it is not open now
      ++best->helpers;
      return best;
    }
  }

  void work(int slot) {
    insideRegion = true;
    std::unique_lock lock(mutex_);
    for (;;) {
      int64_t begin = 0;
      Region* region = join(slot, &begin);
      if (!region) {
        wake_.wait(lock);
        continue;
      }
      const uint64_t epoch = epoch_.load(std::memory_order_relaxed);
      lock.unlock();
      runChunk(*region, begin, slot);
      while (epoch_.load(std::memory_order_relaxed) == epoch && region->open() && chunk(*region, slot)) {
      }
      lock.lock();
      if (--region->helpers == 0) region->left.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Region*> regions_;  // by falling priority
  std::atomic<uint64_t> epoch_{0};
  std::atomic<int> threads_{1};
  int started_ = 0;
};

}  // namespace

int threadCount() { return Pool::get().threads(); }
void setThreadCount(int threads) { Pool::get().setThreads(threads); }

void detail::parallelFor(int64_t count, int64_t grain, Body body, void* context, const Exec& exec) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int threads = insideRegion ? 1 : Pool::get().threads();
  if (threads == 1 || count <= grain) {
    for (int64_t begin = 0; begin < count && !exec.cancelled(); begin += grain) {
      body(context, begin, std::min(begin + grain, count), 0);
    }
    return;
  }
  Region region{.count = count, .grain = grain, .body = body, .context = context, .exec = &exec, .maxSlots = threads};
  Pool::get().run(region);
  if (region.error) std::rethrow_exception(region.error);
}

}  // namespace topknot
