#include "test/simt/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "test/simt/emulator.h"
#include "test/simt/faults.h"
#include "test/simt/fiber.h"
#include "test/simt/sm90.h"

#if defined(TOPKNOT_SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(data, bytes) ((void)(data), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(data, bytes) ((void)(data), (void)(bytes))
#endif

namespace simt {
namespace {

constexpr char guardByte = '\x5c';

void setGuard(char* zone, size_t bytes = guardBytes) {
  std::memset(zone, guardByte, bytes);
  ASAN_POISON_MEMORY_REGION(zone, bytes);
}

/// The first changed byte of the zone, or -1.
int changedByte(char* zone) {
  ASAN_UNPOISON_MEMORY_REGION(zone, guardBytes);
  int changed = -1;
  for (int i = static_cast<int>(guardBytes) - 1; i >= 0; --i) {
    if (zone[i] != guardByte) changed = i;
  }
  ASAN_POISON_MEMORY_REGION(zone, guardBytes);
  return changed;
}

/// Throws when a zone beside data[0, bytes) has changed.
void checkZones(char* data, size_t bytes, const std::string& what, const std::string& when) {
  const std::string size = " of " + std::to_string(bytes) + " bytes";
  if (const int at = changedByte(data + bytes); at >= 0) {
    throw Fault("store out of bounds: " + std::to_string(at) + " bytes behind the end of " + what + size + ", " + when);
  }
  if (const int at = changedByte(data - guardBytes); at >= 0) {
    throw Fault("store out of bounds: " + std::to_string(static_cast<int>(guardBytes) - at) +
                " bytes before the start of " + what + size + ", " + when);
  }
}

void fillPoison(char* data, size_t bytes) {
  for (size_t i = 0; i < bytes; i += sizeof poison) {
    std::memcpy(data + i, &poison, bytes - i < sizeof poison ? bytes - i : sizeof poison);
  }
}

/// Never destroyed: handles that JavaScript still holds at the end of the process are released after it.
struct Heap {
  std::mutex mutex;
  std::map<void*, size_t> live;
  size_t bytes = 0, peak = 0;
};
Heap& heap() {
  static Heap& one = *new Heap;
  return one;
}

Faults* mapped() {
  const char* path = std::getenv("TOPKNOT_SIMT_FAULTS");
  const int file = path ? open(path, O_RDWR) : -1;
  if (file < 0) return nullptr;
  void* data = mmap(nullptr, sizeof(Faults), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return data == MAP_FAILED ? nullptr : static_cast<Faults*>(data);
}

}  // namespace

Faults& faults() {
  static Faults& one = []() -> Faults& {
    Faults* const m = mapped();
    return m ? *m : *new Faults{};
  }();
  return one;
}

void* allocate(size_t bytes) {
  Heap& h = heap();
  const std::lock_guard lock(h.mutex);
  if (falls(faults().allocation) || bytes > deviceBytes - h.bytes) return nullptr;
  // cudaMalloc aligns to 256 bytes; the guard behind starts at the very byte behind the end.
  constexpr size_t alignment = 256;
  const size_t total = (alignment + bytes + guardBytes + alignment - 1) / alignment * alignment;
  char* base = static_cast<char*>(std::aligned_alloc(alignment, total));
  if (!base) return nullptr;
  char* data = base + alignment;
  setGuard(data - guardBytes);
  fillPoison(data, bytes);
  setGuard(data + bytes);
  h.live[data] = bytes;
  faults().live = static_cast<int64_t>(h.live.size());
  h.bytes += bytes;
  h.peak = std::max(h.peak, h.bytes);
  return data;
}

void release(void* data) {
  if (!data) return;
  Heap& h = heap();
  const std::lock_guard lock(h.mutex);
  const auto found = h.live.find(data);
  if (found == h.live.end()) throw Fault("release of memory that is not allocated");
  char* const bytes = static_cast<char*>(data);
  const size_t count = found->second;
  h.live.erase(found);
  faults().live = static_cast<int64_t>(h.live.size());
  h.bytes -= count;
  ASAN_UNPOISON_MEMORY_REGION(bytes - guardBytes, count + 2 * guardBytes);
  std::free(bytes - 256);
}

size_t liveAllocations() {
  const std::lock_guard lock(heap().mutex);
  return heap().live.size();
}

size_t liveBytes() {
  const std::lock_guard lock(heap().mutex);
  return heap().bytes;
}

size_t peakBytes() {
  const std::lock_guard lock(heap().mutex);
  return heap().peak;
}

void forgetPeak() {
  const std::lock_guard lock(heap().mutex);
  heap().peak = heap().bytes;
}

void checkGuards(const char* kernel) {
  const std::lock_guard lock(heap().mutex);
  for (const auto& [data, bytes] : heap().live) {
    checkZones(static_cast<char*>(data), bytes, "device memory", std::string("found when ") + kernel + " ended");
  }
}

SharedMemory::SharedMemory() : arena_(window + 1024) {
  base_ = arena_.data() + (-reinterpret_cast<uintptr_t>(arena_.data()) & 1023);
}

SharedMemory::~SharedMemory() { ASAN_UNPOISON_MEMORY_REGION(arena_.data(), arena_.size()); }

void SharedMemory::startBlock() {
  variables_.clear();
  used_ = declared_ = 0;
  ASAN_UNPOISON_MEMORY_REGION(arena_.data(), arena_.size());
}

void* SharedMemory::variable(const void* tag, const char* name, size_t bytes, bool dynamic) {
  for (const Variable& v : variables_) {
    if (v.tag == tag) return v.data;
  }
  if (!dynamic) declared_ += bytes;
  if (declared_ > limit) {
    throw Fault(std::string("shared memory: with ") + name + " the block declares " + std::to_string(declared_) +
                " bytes, more than the " + std::to_string(limit) + " that a kernel may");
  }
  // 16-byte aligned start; the guard behind begins right after the last byte.
  char* const data = base_ + (used_ + guardBytes + 15) / 16 * 16;
  setGuard(data - guardBytes);
  fillPoison(data, bytes);
  setGuard(data + bytes);
  used_ = static_cast<size_t>(data - base_) + bytes + guardBytes;
  if (used_ > window) throw Fault("shared memory: more than a block can have");
  variables_.push_back({tag, name, data, bytes});
  sm90::publish(data, bytes);
  return data;
}

bool SharedMemory::declares(const char* data, size_t bytes) const {
  return std::ranges::any_of(variables_,
                             [&](const Variable& v) { return data >= v.data && data + bytes <= v.data + v.bytes; });
}

void SharedMemory::endBlock(const char* kernel) {
  for (const Variable& v : variables_) {
    checkZones(v.data, v.bytes, std::string("shared ") + v.name,
               std::string("found when a block of ") + kernel + " ended");
  }
}

}  // namespace simt
