// The place of the first number that is NaN or infinite, the CUDA side of cpu/kernels/first_not_finite.cpp. The least
// of all places is the same in whichever order threads find theirs.
#pragma once
#include <algorithm>

#include "cuda/simt.h"

namespace topknot::cuda {

inline constexpr int finiteThreads = 256;

SIMT_DEVICE bool isFiniteAt(const FirstNotFiniteArgs& a, int64_t i) {
  if (a.type == FloatType::float32) return (static_cast<const uint32_t*>(a.x)[i] & 0x7f800000u) != 0x7f800000u;
  const uint32_t exponent = a.type == FloatType::float16 ? 0x7c00u : 0x7f80u;
  return (static_cast<const uint16_t*>(a.x)[i] & exponent) != exponent;
}

__global__ void findNothing(FirstNotFiniteArgs a) { *a.first = a.count; }

__global__ void __launch_bounds__(finiteThreads) findNotFinite(FirstNotFiniteArgs a) {
  const int64_t step = int64_t{gridDim.x} * finiteThreads;
  for (int64_t i = int64_t{blockIdx.x} * finiteThreads + threadIdx.x; i < a.count; i += step) {
    if (isFiniteAt(a, i)) continue;
    atomicMin(reinterpret_cast<unsigned long long*>(a.first), static_cast<unsigned long long>(i));
    return;  // later ones of this thread are not the first
  }
}

/// The `firstNotFinite` slot. `first` is device memory.
inline Status firstNotFinite(const Exec& exec, const FirstNotFiniteArgs& a) {
  Queue queue(exec);
  queue.launch("findNothing", findNothing, {1}, 1, a);
  if (a.count == 0) return queue.status();
  const int64_t blocks = std::min<int64_t>((a.count + finiteThreads - 1) / finiteThreads, 8 * queue.multiprocessors());
  queue.launch("findNotFinite", findNotFinite, {blocks}, finiteThreads, a);
  return queue.status();
}

}  // namespace topknot::cuda
