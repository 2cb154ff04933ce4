// Sparse times sparse into dense rows, the CUDA side of cpu/kernels/spgemm.cpp: a block sums a tile of a row in shared
// memory, entry after entry as on the CPU, its threads sharing each entry's row of b. Atomic additions would run all
// entries at once, but then the order of a sum would be that of the moment.
#pragma once
#include "backend/spmm_args.h"
#include "cuda/kernels/lower_bound.cuh"

namespace topknot::cuda {

inline constexpr int productThreads = 256;
inline constexpr int64_t productTile = 8192;  // columns: 32 KB

/// The entries of a row of a that come next: where the tile's part of their rows of b starts, how long it is, and their
/// weights. In shared memory.
struct ProductEntries {
  int64_t begin[productThreads];
  int32_t count[productThreads];
  float weight[productThreads];
};

/// sums[c] = (a_row · b)[first + c] for the columns of the tile from `first` on. By the whole block, behind a barrier;
/// ends with one.
SIMT_DEVICE void sumTile(const CsrView& a, int64_t row, const CsrView& b, int64_t first, ProductEntries& next,
                         float* sums) {
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t width = b.cols - first < productTile ? b.cols - first : productTile;
  for (int64_t c = thread; c < width; c += productThreads) sums[c] = 0;
  const int64_t end = a.indptr[row + 1];
  for (int64_t base = a.indptr[row]; base < end; base += productThreads) {
    const int count = static_cast<int>(end - base < productThreads ? end - base : productThreads);
    if (thread < count) {
      const int64_t term = a.indices[base + thread];
      int64_t from = b.indptr[term], to = b.indptr[term + 1];
      if (b.cols > productTile) {
        from = lowerBound(b.indices, from, to, first);
        to = lowerBound(b.indices, from, to, first + productTile);
      }
      next.begin[thread] = from;
      next.count[thread] = static_cast<int32_t>(to - from);
      next.weight[thread] = a.values[base + thread];
    }
    __syncthreads();
    for (int j = 0; j < count; ++j) {
      for (int i = thread; i < next.count[j]; i += productThreads) {
        const int64_t at = next.begin[j] + i;
        float& sum = sums[b.indices[at] - first];
        sum = fmaf(next.weight[j], b.values[at], sum);
      }
      __syncthreads();
    }
  }
  __syncthreads();  // also of a row without entries
}

inline int64_t productTiles(int64_t cols) { return (cols + productTile - 1) / productTile; }

/// Block q · tiles + t: the t-th tile of row q of the result.
__global__ void __launch_bounds__(productThreads) spgemmTiles(SpgemmArgs a, int64_t tiles) {
  SIMT_SHARED(float, sums, productTile);
  SIMT_SHARED(ProductEntries, next, 1);
  const int64_t q = blockIdx.x / tiles, first = blockIdx.x % tiles * productTile, cols = a.b.cols;
  sumTile(a.a, a.rows ? a.rows[q] : q, a.b, first, next[0], sums);
  for (int64_t c = threadIdx.x; c < productTile && first + c < cols; c += productThreads) {
    a.out[q * cols + first + c] = sums[c];
  }
}

/// The `spgemm` slot.
inline Status spgemm(const Exec& exec, const SpgemmArgs& a) {
  Queue queue(exec);
  const int64_t tiles = productTiles(a.b.cols);
  if (a.count > 0 && tiles > 0) {
    queue.launch("spgemmTiles", spgemmTiles, {a.count * tiles}, productThreads, a, tiles);
  }
  return queue.status();
}

}  // namespace topknot::cuda
