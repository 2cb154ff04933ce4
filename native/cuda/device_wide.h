// Operations over all of the device, from CUB (part of the CUDA toolkit, header-only); the emulator has plain loops for
// them. They are called between kernels, never inside one.
#pragma once
#include "cuda/simt.h"

#if defined(__CUDACC__)
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
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

/// sums[i] = values[0] + ... + values[i - 1].
inline void exclusiveSum(Queue& queue, const int32_t* values, int32_t* sums, int64_t count) {
  if (!queue.status().ok()) return;
#if defined(__CUDACC__)
  size_t bytes = 0;
  queue.note(cub::DeviceScan::ExclusiveSum(nullptr, bytes, values, sums, count, queue.stream()), "exclusiveSum");
  void* space = queue.workspace<char>(static_cast<int64_t>(bytes));
  if (!queue.status().ok()) return;
  queue.note(cub::DeviceScan::ExclusiveSum(space, bytes, values, sums, count, queue.stream()), "exclusiveSum");
#else
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t value = values[i];
    sums[i] = sum;
    sum += value;
  }
#endif
}

}  // namespace topknot::cuda
