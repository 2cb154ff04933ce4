// How a warp draws negatives: the same items as backend/negatives.h, in the same order, from the same numbers.
#pragma once
#include "backend/own_items.h"
#include "core/random.h"
#include "cuda/simt.h"

namespace topknot::cuda {

/// The n-th 32 bits of Random(seed, stream).
SIMT_DEVICE uint32_t randomWord(uint64_t seed, uint64_t stream, int64_t n) {
  const auto block = philox(seed, stream, static_cast<uint64_t>(n / 4));
  const uint32_t low = n & 1 ? block[1] : block[0], high = n & 1 ? block[3] : block[2];
  return n & 2 ? high : low;
}

SIMT_DEVICE bool isOwn(const OwnItemsView& own, int64_t row, int32_t item) {
  const int64_t first = own.rows.indptr[row];
  int64_t count = own.rows.indptr[row + 1] - first;
  if (count == 0) return false;
  const uint64_t bit = ownItemBit(count, item);
  if (!(own.bits[2 * first + static_cast<int64_t>(bit / 8)] >> bit % 8 & 1)) return false;
  const int32_t* items = own.rows.indices + first;
  while (count > 1) {
    const int64_t half = count / 2;
    items += items[half - 1] < item ? half : 0;
    count -= half;
  }
  return *items == item;
}

/// Where a warp draws from: places of `pool`, or items themselves where it is null, with the numbers of Random(seed,
/// stream) from the `word`-th on.
struct NegativeDraws {
  const int32_t* pool;
  uint32_t places;
  uint64_t seed, stream;
  int64_t word;
};

/// drawn[0, slots), as drawNegative fills one slot after the other; the own items of `rowOf(slot)` do not count, which
/// is one row for all slots if `oneRow`. By a whole warp; ends with a barrier of the warp.
///
/// Lane l tries number `word` + l, for the slot that it is for if no draw before it is rejected. After a rejection the
/// numbers behind it are for other slots: those of the same row take them as they are, else they are tried again.
template <bool oneRow, typename RowOf>
SIMT_DEVICE void drawNegatives(const OwnItemsView& own, NegativeDraws& draws, int64_t slots, RowOf&& rowOf,
                               int32_t* drawn) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t floor = slots > 0 ? -draws.places % draws.places : 0;  // Random::below32 rejects what is below it
  int tries = 0;                                                        // of the next slot so far
  for (int64_t next = 0; next < slots;) {
    bool biased = false, owned = false;
    int32_t item = -1;
    if (oneRow || next + lane < slots) {
      const uint64_t m = uint64_t{randomWord(draws.seed, draws.stream, draws.word + lane)} * draws.places;
      biased = static_cast<uint32_t>(m) < floor;
      item = draws.pool ? draws.pool[m >> 32] : static_cast<int32_t>(m >> 32);
      owned = !biased && isOwn(own, rowOf(oneRow ? next : next + lane), item);
    }
    const unsigned again = __ballot_sync(allLanes, biased), refused = __ballot_sync(allLanes, owned);
    for (int n = 0; n < 32 && next < slots; ++n) {
      ++draws.word;
      if (!((again | refused) >> n & 1)) {
        if (lane == n) drawn[next] = item;
        ++next;
        tries = 0;
        continue;
      }
      if (refused >> n & 1 && ++tries == negativeTries) {
        if (lane == n) drawn[next] = -1;
        ++next;
        tries = 0;
      }
      if (!oneRow) break;
    }
  }
  __syncwarp(allLanes);
}

}  // namespace topknot::cuda
