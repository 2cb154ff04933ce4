// Inner products at the entries of a sparse matrix, the CUDA side of cpu/kernels/csr_scores.cpp: a warp takes slices of
// the entries, wherever rows end, so that no warp is kept busy by a long row; four entries are in flight at once.
#pragma once
#include "backend/rating_args.h"
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

inline constexpr int64_t entrySlice = 128;
/// How many blocks share the entries: by the shape alone, so that sums over what each warp found do not depend on the
/// device. How many entries there are is known on the device only.
inline int64_t entryBlocks(const CsrView& rows) { return rows.rows < 1023 ? rows.rows + 1 : 1024; }

/// Calls f(entry, x_u·y_i) for the entries (u, i) of this warp's slices, each on one lane. A lane holds V columns at a
/// time.
template <int V, typename F>
SIMT_DEVICE void forEntryScores(const CsrView& rows, const MatrixView& x, const MatrixView& y, F&& f) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t nnz = rows.indptr[rows.rows], warps = int64_t{gridDim.x} * embeddingWarps;
  for (int64_t begin = warpOfGrid() * entrySlice; begin < nnz; begin += warps * entrySlice) {
    const int64_t end = begin + entrySlice < nnz ? begin + entrySlice : nnz;
    int64_t row = 0, behind = rows.rows - 1;  // the row of an entry: the first that ends behind it
    while (row < behind) {
      const int64_t middle = (row + behind) / 2;
      if (rows.indptr[middle + 1] > begin) behind = middle;
      else row = middle + 1;
    }
    for (int64_t base = begin; base < end; base += 32) {
      const int count = static_cast<int>(end - base < 32 ? end - base : 32);
      const int32_t mine = lane < count ? rows.indices[base + lane] : 0;
      float score = 0;
      for (int j = 0; j < count; j += rowsInFlight) {
        float dots[rowsInFlight] = {};
        const float *left[rowsInFlight], *right[rowsInFlight];
        SIMT_UNROLL
        for (int u = 0; u < rowsInFlight; ++u) {  // behind the last entry, the last entry again
          const int at = j + u < count ? j + u : count - 1;
          while (rows.indptr[row + 1] <= base + at) ++row;
          left[u] = x.data + row * x.cols;
          right[u] = y.data + __shfl_sync(allLanes, mine, at) * y.cols;
        }
        for (int64_t c = lane * V; c < x.cols; c += 32 * V) {
          float a[rowsInFlight][V], b[rowsInFlight][V];
          SIMT_UNROLL
          for (int u = 0; u < rowsInFlight; ++u) {
            loadColumns<RowFormat::float32>(left[u], c, a[u]);
            loadColumns<RowFormat::float32>(right[u], c, b[u]);
          }
          SIMT_UNROLL
          for (int u = 0; u < rowsInFlight; ++u) {
            for (int k = 0; k < V; ++k) dots[u] = fmaf(a[u][k], b[u][k], dots[u]);
          }
        }
        SIMT_UNROLL
        for (int u = 0; u < rowsInFlight; ++u) {
          const float dot = warpSum(dots[u]);
          if (lane == j + u) score = dot;
        }
      }
      if (lane < count) f(base + lane, score);
    }
  }
}

template <int V>
__global__ void __launch_bounds__(embeddingThreads, 2) scoreEntries(CsrScoresArgs a) {
  forEntryScores<V>(a.rows, a.x, a.y, [&](int64_t e, float score) { a.out[e] = (a.add ? a.out[e] : 0.0f) + score; });
}

/// The `csrScores` slot.
inline Status csrScores(const Exec& exec, const CsrScoresArgs& a) {
  Queue queue(exec);
  if (a.rows.rows == 0) return queue.status();
  withLaneColumns(a.x.cols, [&](auto columns) {
    queue.launch("scoreEntries", scoreEntries<decltype(columns)::value>, {entryBlocks(a.rows)}, embeddingThreads, a);
  });
  return queue.status();
}

}  // namespace topknot::cuda
