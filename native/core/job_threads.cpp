#include "core/job_threads.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "core/thread_pool.h"

namespace topknot {
namespace {

/// Threads started when needed and ended after a while without work.
class Lane {
 public:
  void submit(int maxThreads, std::function<void()> work) {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    if (static_cast<int>(queue_.size()) > idle_ && threads_ < maxThreads) {
      try {
        std::thread([this] { run(); }).detach();
        ++threads_;
      } catch (const std::system_error&) {
        if (threads_ == 0) {  // else one of those that there are will take it
          queue_.pop_back();
          throw;
        }
      }
    }
    wake_.notify_one();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      ++idle_;
      const bool work = wake_.wait_for(lock, std::chrono::seconds(10), [&] { return !queue_.empty(); });
      --idle_;
      if (!work) {
        --threads_;
        return;
      }
      auto next = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      next();
      next = nullptr;
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  int threads_ = 0, idle_ = 0;
};

}  // namespace

void startJob(int priority, std::function<void()> work) {
  // Never destroyed: a thread may outlive static destructors.
  static Lane* const fits = new Lane;
  static Lane* const queries = new Lane;
  if (priority > 0) {
    queries->submit(threadCount() + 1, std::move(work));
  } else {
    fits->submit(64, std::move(work));
  }
}

}  // namespace topknot
