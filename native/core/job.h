// A job is one call that runs on its own thread: a fit, a search, a save. Its function gets this object.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "core/error.h"
#include "core/thread_pool.h"

namespace topknot {

/// What a job tells the caller while it runs.
struct Progress {
  double done = 0, total = 0;  // in the units of the job: sweeps, rows, bytes
  double loss = 0;             // NaN when the job does not compute one
};

class Job {
 public:
  explicit Job(int priority = 0) {
    exec_.cancel = &cancelled_;
    exec_.priority = priority;
  }
  Job(const Job&) = delete;

  const Exec& exec() const { return exec_; }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  void cancel() { cancelled_ = true; }
  /// Throws ERR_ABORTED once the caller has aborted. Call it between steps and after a parallelFor.
  void checkCancelled() const { require(!cancelled(), ErrorCode::aborted, "the operation was aborted"); }

  /// Calls from any thread; the listener is called with the latest value, not with every one.
  void progress(const Progress& p) const {
    if (listener_) listener_(p);
  }
  bool hasListener() const { return static_cast<bool>(listener_); }
  void listen(std::function<void(const Progress&)> listener) { listener_ = std::move(listener); }

 private:
  std::atomic<bool> cancelled_{false};
  Exec exec_;
  std::function<void(const Progress&)> listener_;
};

}  // namespace topknot
