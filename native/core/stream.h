// Streams run operations in the order of their calls, off the JavaScript thread: the call returns a tensor at once,
// reading it waits. A failed operation poisons its outputs, and so whatever is computed from them.
#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/thread_pool.h"

namespace topknot {

/// The end of work in flight, and its error if it failed.
class Completion {
 public:
  /// Blocks until done; rethrows the error of failed work. Never call it on the JavaScript thread, except in a
  /// documented sync twin.
  void wait();
  bool done() const;
  /// Calls `next`, which must not throw, on the thread that finishes the work. False, and no call, if that has been.
  bool whenDone(std::function<void()> next);
  void finish(std::exception_ptr error = nullptr);

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::exception_ptr error_;
  std::vector<std::function<void()>> next_;
};

class Stream {
 public:
  Stream();
  /// Lets queued work finish on its own thread; does not wait for it.
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Queues `work`. The returned completion fails with whatever it throws.
  std::shared_ptr<Completion> enqueue(std::function<void(const Exec&)> work);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace topknot
