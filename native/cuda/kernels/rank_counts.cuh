// Ranks of the positives among all items, the CUDA side of cpu/kernels/rank_counts.cpp. A block takes a few queries and
// a slice of the items, scores a tile of items at a time, and counts by ballots how many are above each positive, for a
// limited number of positives of each query at a time: queries with more take several passes over the items.
//
// Scores are float32 sums in the order of AddProduct, those of the positives too, so equal items tie; they differ from
// the CPU's in the last bits, so where two scores are that near, counts may differ.
#pragma once
#include <cmath>

#include "cuda/kernels/topk_scan.cuh"

namespace topknot::cuda {

inline constexpr int rankQueries = topkQueries;  // of a block
inline constexpr int rankPositives = 64;         // of a query in one pass
inline constexpr int rankWords = topkThreads / 32;

/// Block q: the scores of the positives of query q, and zero counts.
__global__ void __launch_bounds__(topkThreads) rankTargets(RankCountsArgs a, float* targets) {
  const int64_t query = blockIdx.x, dims = a.items.cols, end = a.positives.indptr[query + 1];
  const float* q = a.queries.data + query * dims;
  for (int64_t e = a.positives.indptr[query] + threadIdx.x; e < end; e += topkThreads) {
    const float* x = a.items.data + a.positives.indices[e] * dims;
    const AddProduct add;
    float sum = 0;
    for (int64_t c = 0; c < dims; ++c) sum = add(sum, q[c], x[c]);
    targets[e] = sum;
    a.above[e] = a.equal[e] = 0;
  }
}

/// Sets the bits of the ids in [low, high), rising, that lie in the tile. Called by the whole block.
SIMT_DEVICE void markTile(unsigned* bits, const int32_t* ids, int64_t low, int64_t high, int64_t firstItem) {
  for (int64_t i = lowerBound(ids, low, high, firstItem) + threadIdx.x; i < high; i += topkThreads) {
    const int64_t place = ids[i] - firstItem;
    if (place >= topkThreads) break;
    atomicOr(&bits[place / 32], 1u << (place % 32));
  }
}

/// Block (t, s): the t-th rankQueries queries, items [s sliceItems, (s + 1) sliceItems).
__global__ void __launch_bounds__(topkThreads)
    rankTiles(RankCountsArgs a, FloatRows<RowFormat::float32> queries, FloatRows<RowFormat::float32> items,
              int64_t sliceItems, const float* targets) {
  SIMT_SHARED(float, target, (rankQueries * rankPositives));
  SIMT_SHARED(int, above, (rankQueries * rankPositives));
  SIMT_SHARED(int, equal, (rankQueries * rankPositives));
  SIMT_SHARED(unsigned, excluded, (rankQueries * rankWords));
  SIMT_SHARED(int64_t, starts, rankQueries);  // of the positives of each query, and how many there are
  SIMT_SHARED(int64_t, counts, rankQueries);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int64_t firstQuery = int64_t{blockIdx.x} * rankQueries, begin = int64_t{blockIdx.y} * sliceItems;
  const int64_t end = begin + sliceItems < items.rows ? begin + sliceItems : items.rows;
  if (thread < rankQueries) {
    const bool inside = firstQuery + thread < queries.rows;
    starts[thread] = inside ? a.positives.indptr[firstQuery + thread] : 0;
    counts[thread] = inside ? a.positives.indptr[firstQuery + thread + 1] - starts[thread] : 0;
  }
  __syncthreads();
  int64_t most = 0;
  for (int q = 0; q < rankQueries; ++q) most = counts[q] > most ? counts[q] : most;

  for (int64_t pass = 0; pass < most; pass += rankPositives) {
    for (int i = thread; i < rankQueries * rankPositives; i += topkThreads) {
      const int q = i / rankPositives;
      const int64_t j = pass + i % rankPositives;
      target[i] = j < counts[q] ? targets[starts[q] + j] : 0.0f;
      above[i] = equal[i] = 0;
    }
    for (int64_t first = begin; first < end; first += topkThreads) {
      if (tileIsDenied(a.filter, first, topkThreads, items.rows)) continue;
      float scores[rankQueries];
      for (int i = thread; i < rankQueries * rankWords; i += topkThreads) excluded[i] = 0;
      __syncthreads();
      for (int q = 0; q < rankQueries && firstQuery + q < queries.rows; ++q) {
        unsigned* bits = excluded + q * rankWords;
        markTile(bits, a.positives.indices, starts[q], starts[q] + counts[q], first);
        if (a.filter.seenPtr) {
          const int64_t row = seenRow(a.filter, firstQuery + q);
          markTile(bits, a.filter.seenIds, a.filter.seenPtr[row], a.filter.seenPtr[row + 1], first);
        }
      }
      tileSums(queries, items, firstQuery, first, scores, AddProduct());  // ends with a barrier
      if (items.columns() == 0) __syncthreads();                          // unless there is nothing to sum
      const int64_t item = first + thread;
      const bool allowed = item < end && isAllowed(a.filter, item);
      SIMT_UNROLL
      for (int q = 0; q < rankQueries; ++q) {
        // NaN compares false.
        const float score = allowed && !(excluded[q * rankWords + thread / 32] >> lane & 1) ? scores[q] : NAN;
        for (int64_t j = pass; j < counts[q] && j < pass + rankPositives; j += 32) {
          const int place = q * rankPositives + static_cast<int>(j - pass);
          int higher = 0, same = 0;
          for (int b = 0; b < 32 && j + b < counts[q]; ++b) {
            const float limit = target[place + b];
            const int up = __popc(__ballot_sync(allLanes, score > limit));
            const int on = __popc(__ballot_sync(allLanes, score == limit));
            if (b == lane) {
              higher = up;
              same = on;
            }
          }
          if (higher) atomicAdd(&above[place + lane], higher);
          if (same) atomicAdd(&equal[place + lane], same);
        }
      }
      __syncthreads();
    }
    __syncthreads();
    for (int i = thread; i < rankQueries * rankPositives; i += topkThreads) {
      const int q = i / rankPositives;
      const int64_t j = pass + i % rankPositives;
      if (j >= counts[q]) continue;
      if (above[i]) atomicAdd(&a.above[starts[q] + j], above[i]);
      if (equal[i]) atomicAdd(&a.equal[starts[q] + j], equal[i]);
    }
    __syncthreads();
  }
}

/// The `rankCounts` slot.
inline Status rankCounts(const Exec& exec, const RankCountsArgs& a, int64_t wantedSlices = 0) {
  Queue queue(exec);
  if (a.queries.rows == 0) return queue.status();
  // The positives are counted on the device alone, so this waits for what was queued before.
  const int64_t entries = queue.fetch(a.positives.indptr + a.queries.rows);
  if (entries == 0) return queue.status();
  float* targets = queue.workspace<float>(entries);
  queue.launch("rankTargets", rankTargets, {a.queries.rows}, topkThreads, a, targets);
  const int64_t groups = ceilDiv(a.queries.rows, rankQueries);
  const Slices slices = slicesOf(queue, a.items.rows, groups, wantedSlices);
  queue.launch("rankTiles", rankTiles, {groups, slices.count}, topkThreads, a,
               {a.queries.data, a.queries.rows, a.queries.cols}, {a.items.data, a.items.rows, a.items.cols},
               slices.items, targets);
  return queue.status();
}

}  // namespace topknot::cuda
