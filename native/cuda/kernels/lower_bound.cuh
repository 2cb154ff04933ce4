// A search through rising ids, such as a row of a sparse matrix has.
#pragma once
#include "cuda/simt.h"

namespace topknot::cuda {

/// The first of the rising ids [low, high) that is not below `id`; high when there is none.
SIMT_DEVICE int64_t lowerBound(const int32_t* ids, int64_t low, int64_t high, int64_t id) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (ids[middle] < id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace topknot::cuda
