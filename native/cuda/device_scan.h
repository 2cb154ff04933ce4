// A sum over all of the device, from CUB (part of the CUDA toolkit, header-only); the emulator has a plain loop for it.
// Called between kernels, never inside one.
#pragma once
#include "cuda/simt.h"

#if defined(__CUDACC__)
#include <cub/device/device_scan.cuh>
#endif

namespace topknot::cuda {

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
  const simt::Access access;  // as a kernel has
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t value = values[i];
    sums[i] = sum;
    sum += value;
  }
#endif
}

}  // namespace topknot::cuda
