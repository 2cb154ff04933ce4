// Keys of top-k selection and how a block sorts them. A key holds a score and an id in one integer, as on the CPU
// (cpu/kernels/candidates.h): the greater key is the better candidate. All keys of a query differ, so every way to
// select by them gives the same result.
#pragma once
#include "cuda/simt.h"

namespace topknot::cuda {

using Key = unsigned long long;

inline constexpr Key noKey = 0;  // below every key: no candidate

/// Higher score first, then lower id; NaN is below everything, -0 is 0.
SIMT_DEVICE Key keyOf(float score, int64_t id) {
  unsigned bits = __float_as_uint(score);
  if (bits == 0x80000000u) bits = 0;
  const unsigned rising = score != score ? 0u : bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
  return static_cast<Key>(rising) << 32 | static_cast<unsigned>(~static_cast<unsigned>(id));
}

SIMT_DEVICE float scoreOf(Key key) {
  const unsigned rising = static_cast<unsigned>(key >> 32);
  if (rising == 0) return __uint_as_float(0x7fc00000u);
  return __uint_as_float(rising ^ (rising >> 31 ? 0x80000000u : 0xffffffffu));
}

SIMT_DEVICE int32_t idOf(Key key) { return static_cast<int32_t>(~static_cast<unsigned>(key)); }

/// One step of a bitonic sort over `pairs` pairs at distance `stride`: puts the greater key first where bit `size` of
/// the position is clear, last where it is set. `first` is the position of keys[0] in the whole sort. Called by the
/// whole block; the caller puts a barrier behind it.
SIMT_DEVICE void bitonicStep(Key* keys, int pairs, int64_t first, int64_t size, int stride) {
  for (int i = static_cast<int>(threadIdx.x); i < pairs; i += static_cast<int>(blockDim.x)) {
    const int a = 2 * i - (i & (stride - 1)), b = a + stride;
    const Key x = keys[a], y = keys[b];
    if ((((first + a) & size) == 0) == (x < y)) {
      keys[a] = y;
      keys[b] = x;
    }
  }
}

/// Sorts keys[0, count) in shared memory, greatest first; count is a power of two. Called by the whole block, behind a
/// barrier; ends with one.
SIMT_DEVICE void sortKeys(Key* keys, int count) {
  for (int size = 2; size <= count; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      bitonicStep(keys, count / 2, 0, size, stride);
      __syncthreads();
    }
  }
}

}  // namespace topknot::cuda
