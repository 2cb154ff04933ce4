// A sort over all of the device, from CUB (part of the CUDA toolkit, header-only); the emulator has a plain one for it.
// Called between kernels, never inside one.
#pragma once
#include "cuda/simt.h"

#if defined(__CUDACC__)
#include <cub/device/device_radix_sort.cuh>
#else
#include <algorithm>
#include <numeric>
#include <vector>
#endif

namespace topknot::cuda {

/// Stable sort of (key, value) by the lowest `bits` bits of the keys, rising.
inline void sortPairs(Queue& queue, const uint32_t* keys, uint32_t* sortedKeys, const int32_t* values,
                      int32_t* sortedValues, int64_t count, int bits) {
  if (!queue.status().ok()) return;
#if defined(__CUDACC__)
  size_t bytes = 0;
  queue.note(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sortedKeys, values, sortedValues, count, 0, bits,
                                             queue.stream()),
             "sortPairs");
  void* space = queue.workspace<char>(static_cast<int64_t>(bytes));
  if (!queue.status().ok()) return;
  queue.note(cub::DeviceRadixSort::SortPairs(space, bytes, keys, sortedKeys, values, sortedValues, count, 0, bits,
                                             queue.stream()),
             "sortPairs");
#else
  const simt::Access access;  // as a kernel has
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  const uint32_t mask = bits >= 32 ? ~0u : (1u << bits) - 1;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return (keys[a] & mask) < (keys[b] & mask); });
  for (int64_t i = 0; i < count; ++i) {
    sortedKeys[i] = keys[order[i]];
    sortedValues[i] = values[order[i]];
  }
#endif
}

}  // namespace topknot::cuda
