// Threads that work on one row together: a warp on a short row, a block on a long one. What they merge, they merge in
// an order that depends on the row's length alone, and every thread gets the same number.
#pragma once
#include <initializer_list>
#include <type_traits>

#include "cuda/simt.h"

namespace topknot::cuda {

inline constexpr int teamThreads = 256;    // of a block: eight warps, or one team
inline constexpr int64_t warpCols = 1024;  // of the longest row that a warp takes

/// N neighbours in memory, in one load or store.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};

template <int N>
SIMT_DEVICE void loadPack(const float* from, float (&x)[N]) {
  const Pack<float, N> pack = *reinterpret_cast<const Pack<float, N>*>(from);
  for (int k = 0; k < N; ++k) x[k] = pack.v[k];
}

template <int N>
SIMT_DEVICE void storePack(const float (&x)[N], float* to) {
  Pack<float, N> pack;
  for (int k = 0; k < N; ++k) pack.v[k] = x[k];
  *reinterpret_cast<Pack<float, N>*>(to) = pack;
}

/// Whether all of them can be read in whole packs of 16 bytes.
inline bool aligned16(std::initializer_list<const void*> arrays) {
  uintptr_t bits = 0;
  for (const void* data : arrays) bits |= reinterpret_cast<uintptr_t>(data);
  return bits % 16 == 0;
}

struct Sum {
  __device__ static float start() { return 0; }
  __device__ static float of(float x, float y) { return x + y; }
};

/// NaN lies above all numbers.
struct Maximum {
  __device__ static float start() { return __uint_as_float(0xff800000u); }
  __device__ static float of(float x, float y) { return y > x || y != y ? y : x; }
};

template <typename Merge>
SIMT_DEVICE float warpMerge(float x) {
  for (int distance = 16; distance > 0; distance /= 2) x = Merge::of(x, __shfl_xor_sync(allLanes, x, distance));
  return x;
}
SIMT_DEVICE float warpSum(float x) { return warpMerge<Sum>(x); }

/// Of a team of 32 or teamThreads threads; all of them arrive.
template <int size, typename Merge>
SIMT_DEVICE float teamMerge(float x) {
  x = warpMerge<Merge>(x);
  if constexpr (size > 32) {
    SIMT_SHARED(float, parts, (size / 32));
    __syncthreads();  // the merge before this one has been read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = parts[0];
    for (int warp = 1; warp < size / 32; ++warp) x = Merge::of(x, parts[warp]);
  }
  return x;
}

/// The row of this thread's team, and the thread's place in it.
template <int size>
SIMT_DEVICE int64_t teamRow() {
  return int64_t{blockIdx.x} * (teamThreads / size) + threadIdx.x / size;
}
template <int size>
SIMT_DEVICE int teamLane() {
  return static_cast<int>(threadIdx.x) % size;
}

/// The last block may have more teams than there are rows.
template <int size>
Grid teamGrid(int64_t rows) {
  constexpr int64_t teams = teamThreads / size;
  return {(rows + teams - 1) / teams};
}

/// Calls f with the size of the teams for rows of `cols` numbers.
template <typename F>
void withTeams(int64_t cols, F&& f) {
  if (cols <= warpCols) f(std::integral_constant<int, 32>());
  else f(std::integral_constant<int, teamThreads>());
}

/// Calls f with `value` as a constant, one of `values`.
template <auto... values, typename T, typename F>
void withConstant(T value, F&& f) {
  ((value == values ? f(std::integral_constant<T, values>()) : void()), ...);
}

}  // namespace topknot::cuda
