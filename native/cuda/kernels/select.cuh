// The k greatest of many keys for any k: a radix search for the k-th greatest, then a bitonic sort of those above it.
#pragma once
#include "cuda/kernels/keys.cuh"

namespace topknot::cuda {

inline constexpr int selectThreads = 256;
inline constexpr int selectBins = 256;           // one digit of 8 bits; a thread each
inline constexpr int64_t selectQueries = 65535;  // at a time: the grid's second dimension
inline constexpr int sortTile = 1024;            // keys that a block sorts in shared memory

/// The search for the k-th greatest key of one query.
struct Selection {
  Key prefix;         // of the k-th greatest: the digits known so far
  int64_t remaining;  // its place among the keys with this prefix
  unsigned counts[selectBins];
  unsigned gathered;
};

/// Keys that the sort of k keys works on: a power of two.
inline int64_t sortWidth(int64_t k) {
  int64_t width = sortTile;
  while (width < k) width *= 2;
  return width;
}

/// Block q.
SIMT_LOCAL __global__ void selectStart(Selection* selections, int64_t k, Key* sorted, int64_t width) {
  Selection& s = selections[blockIdx.x];
  s.counts[threadIdx.x] = 0;
  if (threadIdx.x == 0) {
    s.prefix = 0;
    s.remaining = k;
    s.gathered = 0;
  }
  for (int64_t i = threadIdx.x; i < width; i += selectThreads) sorted[blockIdx.x * width + i] = noKey;
}

/// Counts the digits at `shift` of the keys that have the prefix. Blocks (t, q) share the keys of query q.
SIMT_LOCAL __global__ void __launch_bounds__(selectThreads)
    selectCount(const Key* keys, int64_t count, Selection* selections, int shift) {
  SIMT_SHARED(unsigned, counts, selectBins);
  Selection& s = selections[blockIdx.y];
  counts[threadIdx.x] = 0;
  __syncthreads();
  for (int64_t i = int64_t{blockIdx.x} * selectThreads + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * selectThreads) {
    const Key key = keys[blockIdx.y * count + i];
    // Two shifts: one of 64 bits would be undefined.
    if ((key ^ s.prefix) >> shift >> 8 == 0) atomicAdd(&counts[key >> shift & (selectBins - 1)], 1u);
  }
  __syncthreads();
  if (counts[threadIdx.x]) atomicAdd(&s.counts[threadIdx.x], counts[threadIdx.x]);
}

/// Block q: adds the digit at `shift` to the prefix. When there are fewer than k keys it ends at noKey.
SIMT_LOCAL __global__ void __launch_bounds__(selectThreads) selectDigit(Selection* selections, int shift) {
  SIMT_SHARED(unsigned, counts, selectBins);
  Selection& s = selections[blockIdx.x];
  counts[threadIdx.x] = s.counts[threadIdx.x];
  s.counts[threadIdx.x] = 0;
  __syncthreads();
  if (threadIdx.x != 0) return;
  int digit = selectBins - 1;
  int64_t remaining = s.remaining;
  for (; digit > 0 && counts[digit] < remaining; --digit) remaining -= counts[digit];
  s.prefix |= static_cast<Key>(digit) << shift;
  s.remaining = remaining;
}

/// Copies the keys that are not below the k-th greatest, in any order. Blocks (t, q) share the keys of query q.
SIMT_LOCAL __global__ void __launch_bounds__(selectThreads)
    selectGather(const Key* keys, int64_t count, Selection* selections, Key* sorted, int64_t width) {
  Selection& s = selections[blockIdx.y];
  for (int64_t i = int64_t{blockIdx.x} * selectThreads + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * selectThreads) {
    const Key key = keys[blockIdx.y * count + i];
    if (key != noKey && key >= s.prefix) sorted[blockIdx.y * width + atomicAdd(&s.gathered, 1u)] = key;
  }
}

/// Block (t, q): the steps of a bitonic sort that stay within tile t, for sizes fromSize to toSize.
SIMT_LOCAL __global__ void __launch_bounds__(selectThreads)
    sortTiles(Key* keys, int64_t width, int64_t fromSize, int64_t toSize) {
  SIMT_SHARED(Key, tile, sortTile);
  const int64_t first = int64_t{blockIdx.x} * sortTile;
  Key* source = keys + blockIdx.y * width + first;
  for (int i = static_cast<int>(threadIdx.x); i < sortTile; i += selectThreads) tile[i] = source[i];
  __syncthreads();
  for (int64_t size = fromSize; size <= toSize; size *= 2) {
    for (int stride = static_cast<int>(size < sortTile ? size / 2 : sortTile / 2); stride > 0; stride /= 2) {
      bitonicStep(tile, sortTile / 2, first, size, stride);
      __syncthreads();
    }
  }
  for (int i = static_cast<int>(threadIdx.x); i < sortTile; i += selectThreads) source[i] = tile[i];
}

/// One step of a bitonic sort between tiles. Block (t, q) takes pairs [t selectThreads, ...).
SIMT_LOCAL __global__ void sortStep(Key* keys, int64_t width, int64_t size, int64_t stride) {
  const int64_t i = int64_t{blockIdx.x} * selectThreads + threadIdx.x, a = 2 * i - (i & (stride - 1)), b = a + stride;
  Key* row = keys + blockIdx.y * width;
  const Key x = row[a], y = row[b];
  if (((a & size) == 0) == (x < y)) {
    row[a] = y;
    row[b] = x;
  }
}

/// Sorts each row of keys [queries, width], greatest first; width is a power of two and at least sortTile.
inline void sortRows(Queue& queue, Key* sorted, int64_t width, int64_t queries) {
  const Grid sortGrid{width / sortTile, queries};
  queue.launch("sortTiles", sortTiles, sortGrid, selectThreads, sorted, width, 2, sortTile);
  for (int64_t size = 2 * sortTile; size <= width; size *= 2) {
    for (int64_t stride = size / 2; stride >= sortTile; stride /= 2) {
      queue.launch("sortStep", sortStep, {width / 2 / selectThreads, queries}, selectThreads, sorted, width, size,
                   stride);
    }
    queue.launch("sortTiles", sortTiles, sortGrid, selectThreads, sorted, width, size, size);
  }
}

/// sorted[q] = the k greatest of keys[q, count], greatest first, then noKey up to `width` = sortWidth(k).
inline void selectBest(Queue& queue, const Key* keys, int64_t count, int64_t queries, int64_t k, Selection* selections,
                       Key* sorted, int64_t width) {
  queue.launch("selectStart", selectStart, {queries}, selectThreads, selections, k, sorted, width);
  if (count == 0) return;
  const int64_t tiles = (count + selectThreads - 1) / selectThreads, most = int64_t{8} * queue.multiprocessors();
  const Grid grid{tiles < most ? tiles : most, queries};
  for (int shift = 56; shift >= 0; shift -= 8) {
    queue.launch("selectCount", selectCount, grid, selectThreads, keys, count, selections, shift);
    queue.launch("selectDigit", selectDigit, {queries}, selectThreads, selections, shift);
  }
  queue.launch("selectGather", selectGather, grid, selectThreads, keys, count, selections, sorted, width);
  sortRows(queue, sorted, width, queries);
}

}  // namespace topknot::cuda
