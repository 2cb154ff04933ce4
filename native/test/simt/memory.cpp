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
  ASAN_UNPOISON_MEMORY_REGION(zone, bytes);  // of an allocation before
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

/// All addresses that device memory can have: more than the device has, for guard zones and gaps. What is not in use
/// takes none of the machine's memory.
class Arena {
 public:
  static constexpr size_t bytes = size_t{4} << 30;
  Arena() {
    void* const all = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<char*>(all);
  }
  char* base() const { return base_; }
  void open() {
    const std::lock_guard lock(mutex_);
    if (++users_ == 1) protect(PROT_READ | PROT_WRITE);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    if (--users_ == 0) protect(PROT_NONE);
  }

 private:
  void protect(int access) {
    if (mprotect(base_, bytes, access) != 0) std::abort();
  }

  std::mutex mutex_;
  char* base_;
  int users_ = 0;
};
Arena& arena() {
  static Arena& one = *new Arena;  // never destroyed, as the heap
  return one;
}

// cudaMalloc aligns to 256 bytes; the guard behind starts at the very byte behind the end.
constexpr size_t alignment = 256;
constexpr size_t withGuards(size_t bytes) {
  return (alignment + bytes + guardBytes + alignment - 1) / alignment * alignment;
}

struct Allocation {
  size_t bytes;
  int64_t allocated;      // after how many joins
  int64_t uploaded = -1;  // the last upload: after how many joins; -1: none
};
struct Landing {
  void* to;
  std::vector<char> bytes;
};

/// Never destroyed: handles that JavaScript still holds at the end of the process are released after it.
struct Heap {
  std::mutex mutex;
  std::map<void*, Allocation> live;
  size_t bytes = 0, peak = 0;
  std::vector<Landing> uploads;  // not joined yet
  int64_t joins = 0;
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

Access::Access() { arena().open(); }
Access::~Access() { arena().close(); }

void* allocate(size_t bytes) {
  Heap& h = heap();
  const std::lock_guard lock(h.mutex);
  if (falls(faults().allocation) || bytes > deviceBytes - h.bytes) return nullptr;
  char* base = arena().base();  // of the first gap that is large enough
  for (const auto& [data, allocation] : h.live) {
    char* const next = static_cast<char*>(data) - alignment;
    if (static_cast<size_t>(next - base) >= withGuards(bytes)) break;
    base = next + withGuards(allocation.bytes);
  }
  if (base + withGuards(bytes) > arena().base() + Arena::bytes) return nullptr;
  const Access access;
  char* const data = base + alignment;
  ASAN_UNPOISON_MEMORY_REGION(data, bytes);
  setGuard(data - guardBytes);
  fillPoison(data, bytes);
  setGuard(data + bytes);
  h.live[data] = {bytes, h.joins};
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
  const size_t count = found->second.bytes;
  for (const Landing& upload : h.uploads) {
    if (upload.to >= data && upload.to < bytes + count)
      throw Fault("release of memory that an upload is on its way to");
  }
  h.live.erase(found);
  faults().live = static_cast<int64_t>(h.live.size());
  h.bytes -= count;
  ASAN_POISON_MEMORY_REGION(bytes, count);
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
  for (const auto& [data, allocation] : heap().live) {
    checkZones(static_cast<char*>(data), allocation.bytes, "device memory",
               std::string("found when ") + kernel + " ended");
  }
}

void uploadBeside(void* to, const void* from, size_t bytes) {
  Heap& h = heap();
  const std::lock_guard lock(h.mutex);
  auto found = h.live.upper_bound(to);
  if (found == h.live.begin()) throw Fault("upload to memory that is not allocated");
  Allocation& there = (--found)->second;
  const size_t skipped = static_cast<size_t>(static_cast<char*>(to) - static_cast<char*>(found->first));
  if (skipped + bytes > there.bytes) throw Fault("upload to memory that is not allocated");
  if (there.allocated == h.joins) throw Fault("upload to memory that was allocated since the last join");
  if (there.uploaded >= 0 && there.uploaded + 1 == h.joins) {
    throw Fault("upload to memory that the last join has handed over to kernels");
  }
  there.uploaded = h.joins;
  const char* const data = static_cast<const char*>(from);
  h.uploads.push_back({to, {data, data + bytes}});
}

void joinUploads() {
  Heap& h = heap();
  const std::lock_guard lock(h.mutex);
  const Access access;
  for (const Landing& upload : h.uploads)
    std::copy(upload.bytes.begin(), upload.bytes.end(), static_cast<char*>(upload.to));
  h.uploads.clear();
  ++h.joins;
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
