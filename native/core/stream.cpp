#include "core/stream.h"

#include <thread>
#include <utility>

namespace topknot {

void Completion::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_; });
  if (error_) std::rethrow_exception(error_);
}

bool Completion::done() const {
  std::lock_guard lock(mutex_);
  return done_;
}

bool Completion::whenDone(std::function<void()> next) {
  std::lock_guard lock(mutex_);
  if (done_) return false;
  next_.push_back(std::move(next));
  return true;
}

void Completion::finish(std::exception_ptr error) {
  std::vector<std::function<void()>> next;
  {
    std::lock_guard lock(mutex_);
    done_ = true;
    error_ = std::move(error);
    next.swap(next_);
  }
  changed_.notify_all();
  for (const auto& call : next) call();
}

struct Stream::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::pair<std::function<void(const Exec&)>, std::shared_ptr<Completion>>> queue;
  bool closed = false, started = false;

  void run() {
    const Exec exec{.priority = 1};
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return closed || !queue.empty(); });
      if (queue.empty()) return;
      auto [work, completion] = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      std::exception_ptr error;
      try {
        work(exec);
      } catch (...) {
        error = std::current_exception();
      }
      work = nullptr;  // frees its inputs before anyone hears that it is done
      completion->finish(error);
      lock.lock();
    }
  }
};

Stream::Stream() : state_(std::make_shared<State>()) {}

Stream::~Stream() {
  std::lock_guard lock(state_->mutex);
  state_->closed = true;
  state_->changed.notify_all();
}

std::shared_ptr<Completion> Stream::enqueue(std::function<void(const Exec&)> work) {
  auto completion = std::make_shared<Completion>();
  std::lock_guard lock(state_->mutex);
  if (!state_->started) {  // before anything is queued: it throws where no thread is to be had
    std::thread([state = state_] { state->run(); }).detach();
    state_->started = true;
  }
  state_->queue.emplace_back(std::move(work), completion);
  state_->changed.notify_one();
  return completion;
}

}  // namespace topknot
