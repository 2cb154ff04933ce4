// A fiber is a call stack of its own that runs until it yields. The emulator gives one to each CUDA thread and
// resumes them all from one operating system thread.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define TOPKNOT_SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TOPKNOT_SIMT_ASAN 1
#endif
#endif

namespace simt {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// The next resume() enters entry(argument), on an empty stack: what was suspended there is forgotten, so it must
  /// not own anything. entry must not throw.
  void start(void (*entry)(void*), void* argument);
  /// Runs the fiber until it yields or its entry returns.
  void resume();
  /// Called inside a fiber: goes back to its resume().
  static void yield();

 private:
  static void run();
  void leave(bool forever);

  char* mapping_;            // a guard page, then the stack
  void* context_ = nullptr;  // where the fiber goes on
  void* resumer_ = nullptr;  // where resume() goes on
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
#if defined(TOPKNOT_SIMT_ASAN)
  void* fakeStack_ = nullptr;
  const void* resumerStack_ = nullptr;
  size_t resumerBytes_ = 0;
#endif
};

}  // namespace simt
