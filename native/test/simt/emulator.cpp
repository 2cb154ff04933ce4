#include "test/simt/emulator.h"

#include <algorithm>
#include <utility>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>

#include "test/simt/faults.h"
#include "test/simt/fiber.h"
#include "test/simt/sm90.h"

namespace simt {
namespace {

constexpr unsigned warpSize = 32;

struct Copy {
  void* to;
  const void* from;
  size_t bytes, valid;
  At at;
  bool done = false;
};

struct Thread {
  enum State { ready, atBarrier, atCollective, atCondition, ended } state = ready;
  Dim3 index;
  unsigned number = 0;
  const char* name = "";  // what it waits at
  At at;
  unsigned mask = 0;
  Collective kind = Collective::sync;
  uint64_t value = 0;
  unsigned source = 0;
  void (*work)(void* const* lanes) = nullptr;
  bool (*condition)(void*) = nullptr;
  void* conditionOf = nullptr;
  std::vector<Copy> copies;              // not committed yet
  std::deque<std::vector<Copy>> groups;  // committed, the oldest first
};

std::string text(const At& at) {
  const std::string file = at.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(at.line());
}
std::string hex(unsigned x) {
  char out[11];
  std::snprintf(out, sizeof out, "0x%08x", x);
  return out;
}
bool same(const At& a, const At& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::string_view(a.file_name()) == b.file_name());
}

class Machine {
 public:
  void runGrid(const char* kernel, Dim3 grid, unsigned threads, const std::function<void()>& body) {
    const std::lock_guard lock(mutex_);
    const Access access;
    if (falls(faults().grid)) throw Fault(concat(kernel, ": a planted fault"));
    if (threads == 0 || threads > 1024) throw Fault(concat(kernel, ": a block of ", threads, " threads"));
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
      throw Fault(concat(kernel, ": a grid of ", grid.x, "x", grid.y, "x", grid.z, " blocks"));
    }
    kernel_ = kernel;
    body_ = &body;
    threads_.assign(threads, {});
    while (fibers_.size() < threads) fibers_.push_back(std::make_unique<Fiber>());
    ::gridDim = grid;
    ::blockDim = {threads, 1, 1};
    for (uint64_t b : order(uint64_t{grid.x} * grid.y * grid.z)) {
      ::blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                    static_cast<unsigned>(b / grid.x / grid.y)};
      runBlock();
    }
    checkGuards(kernel);
  }

  int barrier(const char* name, bool vote, const At& at) {
    Thread& t = *running_;
    t.name = name;
    t.at = at;
    t.value = vote;
    wait(Thread::atBarrier);
    return votes_;
  }

  uint64_t exchange(Collective kind, const char* name, unsigned mask, uint64_t value, unsigned source, const At& at) {
    Thread& t = *running_;
    const unsigned lane = t.number % warpSize;
    if (!(mask >> lane & 1)) {
      throw Fault(concat(kernel_, ": ", name, " at ", text(at), ": ", who(t), " is not in the mask ", hex(mask),
                         " that it gives"));
    }
    if (kind == Collective::shuffle && !(mask >> source & 1)) {
      throw Fault(concat(kernel_, ": ", name, " at ", text(at), ": ", who(t), " reads lane ", source,
                         ", which is not in the mask ", hex(mask)));
    }
    t.name = name;
    t.at = at;
    t.mask = mask;
    t.kind = kind;
    t.value = value;
    t.source = source;
    t.state = Thread::atCollective;
    if (!complete(t)) wait(Thread::atCollective);
    return t.value;
  }

  void together(const char* name, void* mine, void (*work)(void* const*), const At& at) {
    running_->work = work;
    exchange(Collective::together, name, ~0u, reinterpret_cast<uintptr_t>(mine), 0, at);
  }

  /// The hardware may finish a copy at any time: random schedules carry out every other one at once, which shows where
  /// memory is still in use.
  void copyLater(const Copy& copy) {
    if (!shared_.holds(copy.to)) throw Fault("copyAsync: expected to copy to shared memory");
    running_->copies.push_back(copy);
    if (early()) carryOut(running_->copies.back());
  }
  void commitCopies() { running_->groups.push_back(std::exchange(running_->copies, {})); }
  void waitForCopies(size_t groupsLeft) {
    for (auto& groups = running_->groups; groups.size() > groupsLeft; groups.pop_front()) {
      for (Copy& c : groups.front()) {
        if (!c.done) carryOut(c);
      }
    }
  }

  bool early() { return schedule_.order == Schedule::random && random_() % 2 == 0; }

  void waitUntil(const char* name, bool (*ready)(void*), void* what, const At& at) {
    Thread& t = *running_;
    t.name = name;
    t.at = at;
    t.condition = ready;
    t.conditionOf = what;
    wait(Thread::atCondition);
  }

  /// Threads may wait at different places, as the hardware's numbered barriers let them.
  void syncSome(int id, int threads, const At& at) {
    if (id < 1 || id > 15) throw Fault(concat(kernel_, ": syncThreads at ", text(at), ": no barrier has number ", id));
    Meeting& m = meetings_[id];
    if (threads <= 0 || threads % static_cast<int>(warpSize) != 0 || (m.arrived > 0 && m.threads != threads)) {
      throw Fault(concat(kernel_, ": syncThreads at ", text(at), ": barrier ", id, " is of ", m.threads,
                         " threads, not of ", threads));
    }
    m.threads = threads;
    if (++m.arrived == threads) {
      m.arrived = 0;
      ++m.round;
      return;
    }
    struct Wait {
      const Meeting& meeting;
      unsigned round;
    } mine{m, m.round};
    const auto opened = [](void* w) { return static_cast<Wait*>(w)->meeting.round != static_cast<Wait*>(w)->round; };
    waitUntil("syncThreads", opened, &mine, at);
  }

  SharedMemory& sharedMemory() { return shared_; }
  size_t sharedOffset(const void* data) const {
    if (!shared_.holds(data)) throw Fault(concat(kernel_, ": expected an address of shared memory"));
    return static_cast<size_t>(static_cast<const char*>(data) - shared_.base());
  }

  void* shared(const void* tag, const char* name, size_t bytes) { return shared_.variable(tag, name, bytes); }

  void setDynamicShared(size_t bytes) { dynamicBytes_ = bytes; }
  void* dynamicShared() { return shared_.variable(&dynamicBytes_, "dynamic shared memory", dynamicBytes_, true); }

  void preempt() {
    if (schedule_.order == Schedule::random && random_() % 4 == 0) wait(Thread::ready);
  }

  unsigned lane() const { return running_->number % warpSize; }

  void setSchedule(Schedule schedule) {
    schedule_ = schedule;
    random_.seed(schedule.seed);
  }

 private:
  template <typename... Parts>
  static std::string concat(const Parts&... parts) {
    std::string out;
    auto add = [&out](const auto& part) {
      if constexpr (requires { std::to_string(part); }) out += std::to_string(part);
      else out += part;
    };
    (add(parts), ...);
    return out;
  }

  static void carryOut(Copy& c) {
    c.done = true;
    std::memcpy(c.to, c.from, c.valid);
    std::memset(static_cast<char*>(c.to) + c.valid, 0, c.bytes - c.valid);
  }

  std::vector<uint64_t> order(uint64_t count) {
    std::vector<uint64_t> out(count);
    std::iota(out.begin(), out.end(), 0);
    if (schedule_.order == Schedule::reverse) std::reverse(out.begin(), out.end());
    if (schedule_.order == Schedule::random) std::shuffle(out.begin(), out.end(), random_);
    return out;
  }

  void runBlock() {
    shared_.startBlock();
    std::ranges::fill(meetings_, Meeting{});
    sm90::startBlock();
    error_ = nullptr;
    for (unsigned i = 0; i < threads_.size(); ++i) {
      threads_[i] = Thread{.index = {i, 0, 0}, .number = i};
      fibers_[i]->start([](void* self) { static_cast<Machine*>(self)->runThread(); }, this);
    }
    std::vector<char> asleep(threads_.size() / warpSize + 1, 0);
    uint64_t round = 0;
    for (auto turn = order(threads_.size());; ++round) {
      // Warps are not in step: under a random schedule some sleep, from any moment on, while others run far ahead.
      if (schedule_.order == Schedule::random && (round == 0 || random_() % 32 == 0)) {
        for (char& warp : asleep) warp = random_() % 2 == 0;
      }
      bool progress = false;
      for (uint64_t i : turn) {
        if (asleep[i / warpSize]) continue;
        running_ = &threads_[i];
        if (running_->state == Thread::atCondition && running_->condition(running_->conditionOf)) {
          running_->state = Thread::ready;
        }
        if (running_->state != Thread::ready) continue;
        progress = true;
        ::threadIdx = running_->index;
        fibers_[i]->resume();
        if (error_) std::rethrow_exception(error_);
      }
      if (std::ranges::all_of(threads_, [](const Thread& t) { return t.state == Thread::ended; })) break;
      progress = openBarrier() || progress;
      if (!progress && std::ranges::count(asleep, 1) > 0) {
        std::ranges::fill(asleep, 0);
        continue;
      }
      if (!progress) throw Fault(deadlock());
      if (schedule_.order == Schedule::random) std::shuffle(turn.begin(), turn.end(), random_);
    }
    sm90::endBlock(kernel_);
    shared_.endBlock(kernel_);
  }

  void runThread() {
    try {
      (*body_)();
      Thread& t = *running_;
      for (const auto& group : t.groups) t.copies.insert(t.copies.end(), group.begin(), group.end());
      if (!t.copies.empty()) {
        throw Fault(concat(kernel_, ": ", who(t), " ended without waiting for the copy that it began at ",
                           text(t.copies.front().at)));
      }
      sm90::endThread(t.number);
    } catch (...) {
      error_ = std::current_exception();
    }
    running_->state = Thread::ended;
  }

  void wait(Thread::State state) {
    Thread* const self = running_;
    self->state = state;
    Fiber::yield();
    running_ = self;
  }

  /// Lets the block go on when every thread waits at the same barrier.
  bool openBarrier() {
    const Thread* first = nullptr;
    for (const Thread& t : threads_) {
      if (t.state != Thread::atBarrier) continue;
      if (!first) first = &t;
      if (!same(t.at, first->at)) {
        throw Fault(concat(kernel_, ": divergent barrier: ", who(*first), " waits at ", first->name, " ",
                           text(first->at), ", ", who(t), " at ", t.name, " ", text(t.at)));
      }
    }
    if (std::ranges::any_of(threads_, [](const Thread& t) { return t.state != Thread::atBarrier; })) return false;
    votes_ = 0;
    for (Thread& t : threads_) {
      votes_ += static_cast<int>(t.value);
      t.state = Thread::ready;
    }
    return true;
  }

  /// When every lane of t's mask waits at the same collective: gives each its result and lets them go on.
  bool complete(const Thread& t) {
    const unsigned firstThread = t.number / warpSize * warpSize, mask = t.mask;
    uint64_t values[warpSize] = {}, ballot = 0;
    for (unsigned lane = 0; lane < warpSize; ++lane) {
      if (!(mask >> lane & 1)) continue;
      if (firstThread + lane >= threads_.size()) return false;
      const Thread& other = threads_[firstThread + lane];
      if (other.state != Thread::atCollective || other.mask != mask || !same(other.at, t.at)) return false;
      values[lane] = other.value;
      if (other.value) ballot |= uint64_t{1} << lane;
    }
    if (t.kind == Collective::together) {
      void* lanes[warpSize];
      for (unsigned lane = 0; lane < warpSize; ++lane) lanes[lane] = reinterpret_cast<void*>(values[lane]);
      t.work(lanes);
    }
    for (unsigned lane = 0; lane < warpSize; ++lane) {
      if (!(mask >> lane & 1)) continue;
      Thread& other = threads_[firstThread + lane];
      other.value = other.kind == Collective::shuffle ? values[other.source] : ballot;
      other.state = Thread::ready;
    }
    return true;
  }

  static std::string who(const Thread& t) {
    return concat("thread ", t.number, " (warp ", t.number / warpSize, ", lane ", t.number % warpSize, ")");
  }

  static std::string whereabouts(const Thread& t) {
    if (t.state == Thread::ended) return "has ended";
    return concat("waits at ", t.name, " ", text(t.at),
                  t.state == Thread::atCollective ? concat(" with mask ", hex(t.mask)) : std::string());
  }

  /// Names one wait that cannot end, and one thread that it waits for.
  std::string deadlock() const {
    for (const Thread& t : threads_) {
      if (t.state != Thread::atCollective) continue;
      const std::string start = concat(kernel_, ": deadlock: ", who(t), " ", whereabouts(t), ", but ");
      for (unsigned lane = 0; lane < warpSize; ++lane) {
        if (!(t.mask >> lane & 1)) continue;
        const unsigned number = t.number / warpSize * warpSize + lane;
        if (number >= threads_.size()) return concat(start, "lane ", lane, " does not exist");
        const Thread& other = threads_[number];
        if (other.state == Thread::atCollective && other.mask == t.mask && same(other.at, t.at)) continue;
        return concat(start, who(other), " ", whereabouts(other));
      }
    }
    const auto polls = std::ranges::find(threads_, Thread::atCondition, &Thread::state);
    if (polls != threads_.end())
      return concat(kernel_, ": deadlock: ", who(*polls), " ", whereabouts(*polls), " for ever");
    const auto waits = std::ranges::find(threads_, Thread::atBarrier, &Thread::state);
    const auto gone = std::ranges::find(threads_, Thread::ended, &Thread::state);
    return concat(kernel_, ": deadlock: ", who(*waits), " ", whereabouts(*waits), ", but ", who(*gone), " has ended");
  }

  struct Meeting {
    int threads = 0, arrived = 0;
    unsigned round = 0;
  };

  std::mutex mutex_;
  Schedule schedule_;
  Meeting meetings_[16];
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Thread> threads_;
  SharedMemory shared_;
  const char* kernel_ = "";
  const std::function<void()>* body_ = nullptr;
  Thread* running_ = nullptr;
  std::exception_ptr error_;
  int votes_ = 0;
  size_t dynamicBytes_ = 0;
};

Machine& machine() {
  static Machine* const one = new Machine;  // never destroyed: a stream's thread may outlive static destructors
  return *one;
}

}  // namespace

void setSchedule(Schedule schedule) { machine().setSchedule(schedule); }

std::vector<Schedule> schedules() {
  return {{Schedule::forward, 0},
          {Schedule::reverse, 0},
          {Schedule::random, 1},
          {Schedule::random, 2},
          {Schedule::random, 3}};
}

void runGrid(const char* kernel, Dim3 grid, unsigned threads, const std::function<void()>& thread) {
  machine().runGrid(kernel, grid, threads, thread);
}

uint64_t exchange(Collective kind, const char* name, unsigned mask, uint64_t value, unsigned source, const At& at) {
  return machine().exchange(kind, name, mask, value, source, at);
}
void together(const char* name, void* mine, void (*work)(void* const*), const At& at) {
  machine().together(name, mine, work, at);
}
void copyLater(void* to, const void* from, size_t bytes, size_t valid, const At& at) {
  machine().copyLater({to, from, bytes, valid, at});
}
void commitCopies() { machine().commitCopies(); }
void waitForCopies(size_t groupsLeft) { machine().waitForCopies(groupsLeft); }
int barrier(const char* name, bool vote, const At& at) { return machine().barrier(name, vote, at); }
void* sharedVariable(const void* tag, const char* name, size_t bytes) { return machine().shared(tag, name, bytes); }
void setDynamicShared(size_t bytes) { machine().setDynamicShared(bytes); }
void* dynamicShared() { return machine().dynamicShared(); }
void preempt() { machine().preempt(); }
bool early() { return machine().early(); }
void waitUntil(const char* name, bool (*ready)(void*), void* what, const At& at) {
  machine().waitUntil(name, ready, what, at);
}
void syncSome(int id, int threads, const At& at) { machine().syncSome(id, threads, at); }
SharedMemory& sharedMemory() { return machine().sharedMemory(); }
size_t sharedOffset(const void* data) { return machine().sharedOffset(data); }
unsigned laneId() { return machine().lane(); }

}  // namespace simt
