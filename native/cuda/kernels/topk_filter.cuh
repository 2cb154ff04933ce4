// Which items a query may be given, as kernels ask for it.
#pragma once
#include "backend/views.h"
#include "cuda/kernels/lower_bound.cuh"

namespace topknot::cuda {

/// Whether none of the `count` items from firstItem may be returned for any query. firstItem is a multiple of 64.
SIMT_DEVICE bool tileIsDenied(const FilterView& filter, int64_t firstItem, int64_t count, int64_t items) {
  if (!filter.allowed) return false;
  for (int64_t item = firstItem; item < items && item < firstItem + count; item += 64) {
    if (filter.allowed[item / 64]) return false;
  }
  return true;
}

SIMT_DEVICE bool isAllowed(const FilterView& filter, int64_t item) {
  return !filter.allowed || (filter.allowed[item / 64] >> (item % 64) & 1);
}

SIMT_DEVICE int64_t seenRow(const FilterView& filter, int64_t query) {
  return filter.seenRows ? filter.seenRows[query] : query;
}

SIMT_DEVICE bool admits(const FilterView& filter, int64_t query, int64_t item) {
  if (!isAllowed(filter, item)) return false;
  if (!filter.seenPtr) return true;
  const int64_t row = seenRow(filter, query), end = filter.seenPtr[row + 1];
  const int64_t at = lowerBound(filter.seenIds, filter.seenPtr[row], end, item);
  return at == end || filter.seenIds[at] != item;
}

}  // namespace topknot::cuda
