// How BPR draws negatives: the same for every instruction set.
#pragma once
#include <cstdint>

#include "backend/bpr_args.h"
#include "core/random.h"

namespace topknot {

/// Whether a sorted list holds an item. Without branches: they could not be predicted.
inline bool holds(const int32_t* items, int64_t count, int32_t item) {
  while (count > 1) {
    const int64_t half = count / 2;
    items += items[half - 1] < item ? half : 0;
    count -= half;
  }
  return count == 1 && *items == item;
}

/// An item of the task's pool that is not the user's own, or -1.
inline int32_t drawNegative(const BprArgs& a, const BprTask& task, int32_t user, Random& random) {
  const int64_t first = a.users.indptr[user], count = a.users.indptr[user + 1] - first;
  for (int attempt = 0; attempt < bprTries; ++attempt) {
    const int32_t item = a.pool[task.poolBegin + random.below32(static_cast<uint32_t>(task.poolEnd - task.poolBegin))];
    if (!holds(a.users.indices + first, count, item)) return item;
  }
  return -1;
}

}  // namespace topknot
