#include "test/simt/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if defined(TOPKNOT_SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) || defined(TOPKNOT_SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace simt {
namespace {

constexpr size_t guardBytes = 4096;
#if defined(TOPKNOT_SIMT_ASAN)
constexpr size_t stackBytes = 256 << 10;  // its frames are larger
#else
constexpr size_t stackBytes = 64 << 10;
#endif

thread_local Fiber* current = nullptr;

}  // namespace

#if defined(__x86_64__) && !defined(TOPKNOT_SIMT_UCONTEXT)

// swapcontext() asks the kernel about signals at every switch, which would be most of the emulator's time. This saves
// what the System V ABI says a call preserves, and swaps the stack pointers.
extern "C" void topknotSimtSwitch(void** save, void* load);
asm(R"(
.text
.p2align 4
.type topknotSimtSwitch, @function
topknotSimtSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size topknotSimtSwitch, . - topknotSimtSwitch
)");

static void* prepare(char* stack, void (*run)()) {
  // As if `run` had been called: its address for `ret` to pop, and above it a return address of zero, which ends
  // backtraces and leaves the stack aligned as the ABI wants it on entry.
  uintptr_t* top = reinterpret_cast<uintptr_t*>(stack + stackBytes);
  *--top = 0;
  *--top = reinterpret_cast<uintptr_t>(run);
  for (int saved = 0; saved < 6; ++saved) *--top = 0;
  return top;
}

static void switchTo(void** save, void* load) { topknotSimtSwitch(save, load); }

#else

static void* prepare(char* stack, void (*run)()) {
  // The context lives at the low end of the stack it describes.
  auto* context = new (stack) ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = stack + sizeof(ucontext_t);
  context->uc_stack.ss_size = stackBytes - sizeof(ucontext_t);
  context->uc_link = nullptr;
  makecontext(context, run, 0);
  return context;
}

static void switchTo(void** save, void* load) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, static_cast<ucontext_t*>(load));
}

#endif

Fiber::Fiber() {
  void* mapping = mmap(nullptr, guardBytes + stackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mprotect(mapping, guardBytes, PROT_NONE);
  mapping_ = static_cast<char*>(mapping);
}

Fiber::~Fiber() {
#if defined(TOPKNOT_SIMT_ASAN)
  __asan_unpoison_memory_region(mapping_ + guardBytes, stackBytes);
#endif
  munmap(mapping_, guardBytes + stackBytes);
}

void Fiber::start(void (*entry)(void*), void* argument) {
#if defined(TOPKNOT_SIMT_ASAN)
  __asan_unpoison_memory_region(mapping_ + guardBytes, stackBytes);  // frames of a kernel that was given up
  fakeStack_ = nullptr;
#endif
  entry_ = entry;
  argument_ = argument;
  context_ = prepare(mapping_ + guardBytes, &Fiber::run);
}

void Fiber::resume() {
  Fiber* const outer = current;
  current = this;
#if defined(TOPKNOT_SIMT_ASAN)
  void* fakeStack = nullptr;
  __sanitizer_start_switch_fiber(&fakeStack, mapping_ + guardBytes, stackBytes);
#endif
  switchTo(&resumer_, context_);
#if defined(TOPKNOT_SIMT_ASAN)
  __sanitizer_finish_switch_fiber(fakeStack, nullptr, nullptr);
#endif
  current = outer;
}

void Fiber::yield() { current->leave(false); }

void Fiber::leave([[maybe_unused]] bool forever) {
#if defined(TOPKNOT_SIMT_ASAN)
  __sanitizer_start_switch_fiber(forever ? nullptr : &fakeStack_, resumerStack_, resumerBytes_);
#endif
  switchTo(&context_, resumer_);
#if defined(TOPKNOT_SIMT_ASAN)
  __sanitizer_finish_switch_fiber(fakeStack_, &resumerStack_, &resumerBytes_);
#endif
}

void Fiber::run() {
  Fiber* const self = current;
#if defined(TOPKNOT_SIMT_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &self->resumerStack_, &self->resumerBytes_);
#endif
  self->entry_(self->argument_);
  self->leave(true);
  __builtin_unreachable();
}

}  // namespace simt
