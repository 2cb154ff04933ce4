// A lock for many readers or one writer that serves them in the order of their arrival. std::shared_mutex may let a
// steady stream of queries keep a writer waiting for ever, or a busy writer the queries.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace topknot {

/// Satisfies SharedLockable as far as std::unique_lock and std::shared_lock need it.
class FairLock {
 public:
  void lock() {
    std::unique_lock hold(mutex_);
    const uint64_t ticket = next_++;
    changed_.wait(hold, [&] { return serving_ == ticket && readers_ == 0; });
    // Nobody is served until unlock().
  }
  void unlock() {
    const std::lock_guard hold(mutex_);
    ++serving_;
    changed_.notify_all();
  }
  void lock_shared() {
    std::unique_lock hold(mutex_);
    const uint64_t ticket = next_++;
    changed_.wait(hold, [&] { return serving_ == ticket; });
    ++readers_;
    ++serving_;
    if (serving_ != next_) changed_.notify_all();
  }
  void unlock_shared() {
    const std::lock_guard hold(mutex_);
    if (--readers_ == 0 && serving_ != next_) changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_ = 0, serving_ = 0;
  int64_t readers_ = 0;
};

}  // namespace topknot
