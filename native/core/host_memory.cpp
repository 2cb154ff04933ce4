#include "core/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "core/error.h"

namespace topknot {
namespace {

constexpr size_t alignment = 64, hugePage = size_t{1} << 21;
constexpr size_t leastKept = size_t{1} << 16;  // malloc itself keeps smaller ones
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t mostKept = 0;  // so that the sanitizer sees who uses freed memory
#else
constexpr size_t mostKept = size_t{1} << 26;
#endif

struct Block {
  void* data;
  size_t bytes;
};

/// Freed blocks, the latest last. When they are too many, the oldest go.
class Kept {
 public:
  static Kept& get() {
    static Kept* kept = new Kept;  // never destroyed: JavaScript's finalizers run after static destructors
    return *kept;
  }

  void* take(size_t bytes) {
    std::lock_guard lock(mutex_);
    const auto found = std::find_if(blocks_.rbegin(), blocks_.rend(), [&](const Block& b) { return b.bytes == bytes; });
    if (found == blocks_.rend()) return nullptr;
    void* data = found->data;
    blocks_.erase(std::next(found).base());
    bytes_ -= bytes;
    return data;
  }

  void give(Block block) noexcept {
    if (block.bytes >= leastKept && block.bytes <= mostKept / 2 && add(block)) return trim(mostKept);
    std::free(block.data);
  }

  void trim(size_t most) noexcept {
    for (Block oldest; (oldest = removeOldest(most)).data;) std::free(oldest.data);  // free() may be slow: not locked
  }

  size_t bytes() const {
    std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  bool add(Block block) noexcept {
    try {
      std::lock_guard lock(mutex_);
      blocks_.push_back(block);
      bytes_ += block.bytes;
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  /// Nothing when all that is left may stay.
  Block removeOldest(size_t most) noexcept {
    std::lock_guard lock(mutex_);
    if (bytes_ <= most) return {};
    const Block oldest = blocks_.front();
    blocks_.erase(blocks_.begin());
    bytes_ -= oldest.bytes;
    return oldest;
  }

  mutable std::mutex mutex_;
  std::vector<Block> blocks_;
  size_t bytes_ = 0;
};

bool isLarge(size_t bytes) { return bytes >= 2 * hugePage; }

/// What may be kept is rounded up by at most an eighth, so that blocks of nearly the same size can stand in for each
/// other.
size_t blockBytes(size_t bytes) {
  const size_t needed = bytes + alignment, step = needed <= mostKept / 2 ? std::bit_floor(needed) / 8 : 0;
  const size_t unit = std::max(isLarge(bytes) ? hugePage : alignment, step);
  return (needed / unit + 1) * unit;
}

}  // namespace

std::shared_ptr<void> hostMemory(size_t bytes) {
  const size_t size = bytes < SIZE_MAX / 2 ? blockBytes(bytes) : 0;
  void* data = size ? Kept::get().take(size) : nullptr;
  if (!data && size) {
    // Large blocks ask for huge pages: random rows of a matrix beyond 8 MB miss the translation buffers otherwise.
    const auto allocate = [&] { return std::aligned_alloc(isLarge(bytes) ? hugePage : alignment, size); };
    data = allocate();
    if (!data) {
      trimHostMemory();
      data = allocate();
    }
    if (data && isLarge(bytes)) madvise(data, size, MADV_HUGEPAGE);  // advice: a refusal changes nothing but speed
  }
  if (!data) fail(ErrorCode::memory, "could not allocate ", bytes, " bytes of memory");
  return {data, [size](void* p) { Kept::get().give({p, size}); }};
}

size_t keptHostBytes() { return Kept::get().bytes(); }
void trimHostMemory() noexcept { Kept::get().trim(0); }

}  // namespace topknot
