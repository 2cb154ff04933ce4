// How BPR draws negatives: the same for every instruction set.
#pragma once
#include <cstdint>

#include "backend/bpr_args.h"
#include "core/random.h"

namespace topknot {

/// Whether a sorted list holds an item.
inline bool holds(const int32_t* items, int64_t count, int32_t item) {
  while (count > 1) {
    const int64_t half = count / 2;
    items += items[half - 1] < item ? half : 0;
    count -= half;
  }
  return count == 1 && *items == item;
}

/// The own items of a user.
class OwnItems {
 public:
  OwnItems(const BprArgs& a, int32_t user)
      : first_(a.users.indptr[user]),
        count_(a.users.indptr[user + 1] - first_),
        bits_(a.ownBits + 2 * first_),
        items_(a.users.indices + first_) {}
  bool has(int32_t item) const {
    const uint64_t bit = bprOwnBit(count_, item);
    return bits_[bit / 8] >> bit % 8 & 1 && holds(items_, count_, item);
  }

 private:
  int64_t first_, count_;
  const uint8_t* bits_;
  const int32_t* items_;
};

/// An item of the task's pool that is not the user's own, or -1.
inline int32_t drawNegative(const BprArgs& a, const BprTask& task, const OwnItems& own, Random& random) {
  const uint32_t places = static_cast<uint32_t>(task.poolEnd - task.poolBegin);
  for (int attempt = 0; attempt < bprTries; ++attempt) {
    const int32_t item = a.pool[task.poolBegin + random.below32(places)];
    if (!own.has(item)) return item;
  }
  return -1;
}

}  // namespace topknot
