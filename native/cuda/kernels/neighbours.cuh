// Nearest neighbours of sparse rows, the CUDA side of cpu/kernels/neighbours.cpp: a block takes a row, sums the product
// tile by tile (spgemm.cuh) and keeps the best of each tile, so that the product is never held. For k beyond what a
// list holds, the keys of some rows at a time are in memory for a radix search.
#pragma once
#include "backend/neighbours_args.h"
#include "cuda/kernels/select.cuh"
#include "cuda/kernels/spgemm.cuh"
#include "cuda/kernels/topk_list.cuh"

namespace topknot::cuda {

inline constexpr int64_t neighboursWorkspace = int64_t{256} << 20;  // bytes of keys

/// The key of column c as a neighbour of the row, whose product with it is `sum`.
SIMT_DEVICE Key neighbourKey(const NeighboursArgs& a, int64_t row, int64_t c, float sum) {
  if (!(sum > 0) || (a.self >= 0 && a.self + row == c)) return noKey;
  const float similarity = sum / fmaf(a.aNorms[row], a.bNorms[c], a.shrinkage);
  return similarity > 0 ? keyOf(similarity, c) : noKey;
}

SIMT_DEVICE void writeNeighbour(const NeighboursArgs& a, int64_t row, int64_t place, Key key) {
  a.ids[row * a.k + place] = key == noKey ? -1 : idOf(key);
  a.scores[row * a.k + place] = scoreOf(key);
}

/// Block r: row r, k up to what a list holds.
__global__ void __launch_bounds__(productThreads) neighboursListed(NeighboursArgs a) {
  SIMT_SHARED(float, sums, productTile);
  SIMT_SHARED(ProductEntries, next, 1);
  SIMT_SHARED(TopkList, best, 1);
  const int k = static_cast<int>(a.k);
  const int64_t row = blockIdx.x, cols = a.b.cols;
  clear(best[0]);
  __syncthreads();
  for (int64_t first = 0; first < cols; first += productTile) {
    sumTile(a.a, row, a.b, first, next[0], sums);
    const int64_t width = cols - first < productTile ? cols - first : productTile;
    for (int64_t block = 0; block < width; block += productThreads) {
      const int64_t c = block + threadIdx.x;
      offer(best[0], k, c < width ? neighbourKey(a, row, first + c, sums[c]) : noKey);
    }
  }
  merge(best[0], k);
  for (int j = static_cast<int>(threadIdx.x); j < k; j += productThreads) writeNeighbour(a, row, j, best[0].keys[j]);
}

/// Block r · tiles + t: keys[r] = the keys of row firstRow + r over the t-th tile.
__global__ void __launch_bounds__(productThreads)
    neighboursKeys(NeighboursArgs a, int64_t firstRow, int64_t tiles, Key* keys) {
  SIMT_SHARED(float, sums, productTile);
  SIMT_SHARED(ProductEntries, next, 1);
  const int64_t r = blockIdx.x / tiles, first = blockIdx.x % tiles * productTile, cols = a.b.cols;
  sumTile(a.a, firstRow + r, a.b, first, next[0], sums);
  for (int64_t c = threadIdx.x; c < productTile && first + c < cols; c += productThreads) {
    keys[r * cols + first + c] = neighbourKey(a, firstRow + r, first + c, sums[c]);
  }
}

/// Block (t, r): the t-th productThreads places of row firstRow + r, from its sorted keys [width].
__global__ void __launch_bounds__(productThreads)
    neighboursWrite(NeighboursArgs a, int64_t firstRow, const Key* sorted, int64_t width) {
  const int64_t place = int64_t{blockIdx.x} * productThreads + threadIdx.x;
  if (place >= a.k) return;
  writeNeighbour(a, firstRow + blockIdx.y, place, place < width ? sorted[blockIdx.y * width + place] : noKey);
}

/// The `neighbours` slot.
inline Status neighbours(const Exec& exec, const NeighboursArgs& a) {
  Queue queue(exec);
  const int64_t rows = a.a.rows, cols = a.b.cols;
  if (rows == 0 || a.k == 0) return queue.status();
  if (a.k <= TopkList::capacity) {
    queue.launch("neighboursListed", neighboursListed, {rows}, productThreads, a);
    return queue.status();
  }
  const int64_t k = a.k < cols ? a.k : cols, width = sortWidth(k), tiles = productTiles(cols);
  int64_t step = neighboursWorkspace / ((cols + width) * static_cast<int64_t>(sizeof(Key)));
  step = step < 1 ? 1 : step > selectQueries ? selectQueries : step;
  step = step < rows ? step : rows;
  Key* keys = queue.workspace<Key>(step * cols);
  Key* sorted = queue.workspace<Key>(step * width);
  Selection* selections = queue.workspace<Selection>(step);
  for (int64_t first = 0; first < rows && !exec.cancelled(); first += step) {
    const int64_t count = rows - first < step ? rows - first : step;
    if (tiles > 0) {
      queue.launch("neighboursKeys", neighboursKeys, {count * tiles}, productThreads, a, first, tiles, keys);
    }
    selectBest(queue, keys, cols, count, k, selections, sorted, width);
    queue.launch("neighboursWrite", neighboursWrite, {(a.k + productThreads - 1) / productThreads, count},
                 productThreads, a, first, sorted, width);
  }
  return queue.status();
}

}  // namespace topknot::cuda
