// How negatives are drawn: the same for every instruction set.
#pragma once
#include <cstdint>

#include "backend/own_items.h"
#include "core/random.h"

namespace topknot {

/// The own items of one row.
class OwnItems {
 public:
  OwnItems(const OwnItemsView& all, int64_t row)
      : count_(all.rows.indptr[row + 1] - all.rows.indptr[row]),
        bits_(all.bits + 2 * all.rows.indptr[row]),
        items_(all.rows.indices + all.rows.indptr[row]) {}

  bool has(int32_t item) const {
    const uint64_t bit = ownItemBit(count_, item);
    return count_ > 0 && bits_[bit / 8] >> bit % 8 & 1 && found(item);
  }

 private:
  bool found(int32_t item) const {
    const int32_t* items = items_;
    int64_t count = count_;
    while (count > 1) {
      const int64_t half = count / 2;
      items += items[half - 1] < item ? half : 0;
      count -= half;
    }
    return *items == item;
  }
  int64_t count_;
  const uint8_t* bits_;
  const int32_t* items_;
};

/// pool[place], or place itself without a pool, of a place in [0, places) drawn uniformly; drawn again while that is an
/// own item: negativeTries draws at most, then -1.
inline int32_t drawNegative(const OwnItems& own, const int32_t* pool, int64_t places, Random& random) {
  for (int attempt = 0; attempt < negativeTries; ++attempt) {
    const uint32_t place = random.below32(static_cast<uint32_t>(places));
    const int32_t item = pool ? pool[place] : static_cast<int32_t>(place);
    if (!own.has(item)) return item;
  }
  return -1;
}

}  // namespace topknot
