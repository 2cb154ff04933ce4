// Exact top-k over float32, the CUDA side of cpu/kernels/topk.cpp.
//
// k up to 256: topkScan gives a block a slice of the items and a few queries. Its threads score one item each, offer
// what beats the block's threshold to a list in shared memory, and the block writes the list of its slice; topkMerge
// makes one of the lists of all slices. Larger k: topkScores writes the keys of all items, select.cuh takes the best.
//
// Scores are float32 sums over the columns in order (fused multiply-adds), so they differ from the CPU's in the last
// bits; selection among them is exact.
#pragma once
#include <cmath>

#include "cuda/kernels/select.cuh"
#include "cuda/kernels/topk_list.cuh"

namespace topknot::cuda {

inline constexpr int topkThreads = 256;  // of a block; also the items of a tile
inline constexpr int topkQueries = 4;    // that share one pass over the items
inline constexpr int topkColumns = 16;   // staged at a time

/// What a test sets to reach every path on small shapes.
struct TopkPlan {
  int64_t largestListed = TopkList::capacity;  // larger k goes through select.cuh
  int64_t workspaceBytes = int64_t{1} << 30;   // for the keys of a chunk of queries
  int64_t slices = 0;                          // 0: enough blocks to fill the device
};

/// The queries [begin, end) that are worked on at a time.
struct QueryChunk {
  int64_t begin, end;
};

/// out[q] = |query q|², a warp for each.
__global__ void topkQueryNorms(MatrixView queries, float* out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t query = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  float sum = 0;
  if (query < queries.rows) {
    const float* row = queries.data + query * queries.cols;
    for (int64_t c = lane; c < queries.cols; c += 32) sum = fmaf(row[c], row[c], sum);
  }
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(allLanes, sum, distance);
  if (lane == 0 && query < queries.rows) out[query] = sum;
}

/// The items; topk() lets only float32 in.
SIMT_DEVICE MatrixView floatItems(const TopkArgs& a) {
  return {static_cast<const float*>(a.items.data), a.items.rows, a.items.cols};
}

/// products[q] = inner product of query firstQuery + q and item firstItem + threadIdx.x; 0 behind the ends. Called by
/// the whole block; ends with a barrier.
template <int Q>
SIMT_DEVICE void tileProducts(const MatrixView& queries, const MatrixView& items, int64_t firstQuery, int64_t firstItem,
                              float (&products)[Q]) {
  constexpr int stride = topkColumns + 1;  // odd: the threads' rows start in different banks
  SIMT_SHARED(float, itemTile, (topkThreads * stride));
  SIMT_SHARED(float, queryTile, (Q * topkColumns));
  const int thread = static_cast<int>(threadIdx.x);
  for (int q = 0; q < Q; ++q) products[q] = 0;
  for (int64_t column = 0; column < items.cols; column += topkColumns) {
    for (int i = thread; i < topkThreads * topkColumns; i += topkThreads) {
      const int64_t item = firstItem + i / topkColumns, c = column + i % topkColumns;
      itemTile[i / topkColumns * stride + i % topkColumns] =
          item < items.rows && c < items.cols ? items.data[item * items.cols + c] : 0.0f;
    }
    for (int i = thread; i < Q * topkColumns; i += topkThreads) {
      const int64_t query = firstQuery + i / topkColumns, c = column + i % topkColumns;
      queryTile[i] = query < queries.rows && c < queries.cols ? queries.data[query * queries.cols + c] : 0.0f;
    }
    __syncthreads();
    for (int c = 0; c < topkColumns; ++c) {
      const float x = itemTile[thread * stride + c];
      for (int q = 0; q < Q; ++q) products[q] = fmaf(queryTile[q * topkColumns + c], x, products[q]);
    }
    __syncthreads();
  }
}

/// Greater is better: the squared distance counts negative.
SIMT_DEVICE float rankedScore(const TopkArgs& a, const float* queryNorms, int64_t query, int64_t item, float product) {
  if (a.metric == Metric::innerProduct) return product;
  const float queryNorm = queryNorms[query], itemNorm = a.itemNorms[item];
  if (a.metric == Metric::cosine) {
    const float norms = sqrtf(queryNorm) * sqrtf(itemNorm);
    return norms == 0 ? 0.0f : product / norms;
  }
  const float distance = fmaf(-2.0f, product, queryNorm + itemNorm);
  return distance < 0 ? 0.0f : -distance;  // rounding can take it below zero
}

/// Whether none of the items of a tile may be returned for any query. firstItem is a multiple of 64.
SIMT_DEVICE bool tileIsDenied(const FilterView& filter, int64_t firstItem, int64_t items) {
  if (!filter.allowed) return false;
  for (int64_t item = firstItem; item < items && item < firstItem + topkThreads; item += 64) {
    if (filter.allowed[item / 64]) return false;
  }
  return true;
}

SIMT_DEVICE bool admits(const FilterView& filter, int64_t query, int64_t item) {
  if (filter.allowed && !(filter.allowed[item / 64] >> (item % 64) & 1)) return false;
  if (!filter.seenPtr) return true;
  const int64_t row = filter.seenRows ? filter.seenRows[query] : query, end = filter.seenPtr[row + 1];
  int64_t low = filter.seenPtr[row], high = end;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (filter.seenIds[middle] < item) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low == end || filter.seenIds[low] != item;
}

/// Block (t, s): the t-th Q queries of the chunk, items [s sliceItems, (s + 1) sliceItems). lists: [chunk, slices, k].
template <int Q>
__global__ void __launch_bounds__(topkThreads)
    topkScan(TopkArgs a, const float* queryNorms, QueryChunk chunk, int64_t sliceItems, Key* lists) {
  SIMT_SHARED(TopkList, best, Q);
  const int k = static_cast<int>(a.k);
  const int64_t firstQuery = chunk.begin + int64_t{blockIdx.x} * Q;
  const int64_t begin = int64_t{blockIdx.y} * sliceItems;
  const int64_t end = begin + sliceItems < a.items.rows ? begin + sliceItems : a.items.rows;
  for (int q = 0; q < Q; ++q) clear(best[q]);
  __syncthreads();

  for (int64_t first = begin; first < end; first += topkThreads) {
    if (tileIsDenied(a.filter, first, a.items.rows)) continue;
    float products[Q];
    tileProducts<Q>(a.queries, floatItems(a), firstQuery, first, products);
    const int64_t item = first + threadIdx.x;
    for (int q = 0; q < Q && firstQuery + q < chunk.end; ++q) {
      Key key = noKey;
      if (item < end) {
        key = keyOf(rankedScore(a, queryNorms, firstQuery + q, item, products[q]), item);
        // The filter reads memory: ask it only about items that would be kept.
        if (key > best[q].threshold && !admits(a.filter, firstQuery + q, item)) key = noKey;
      }
      offer(best[q], k, key);
    }
  }

  for (int q = 0; q < Q && firstQuery + q < chunk.end; ++q) {
    merge(best[q], k);
    Key* out = lists + ((firstQuery + q - chunk.begin) * gridDim.y + blockIdx.y) * k;
    for (int j = static_cast<int>(threadIdx.x); j < k; j += topkThreads) out[j] = best[q].keys[j];
  }
}

SIMT_DEVICE void writeResult(const TopkArgs& a, int64_t query, int64_t place, Key key) {
  const float score = scoreOf(key);
  a.ids[query * a.k + place] = key == noKey ? -1 : idOf(key);
  a.scores[query * a.k + place] = a.metric == Metric::l2 ? 0.0f - score : score;
}

/// Block q: the k best of the lists of the q-th query of the chunk.
__global__ void __launch_bounds__(topkThreads)
    topkMerge(TopkArgs a, QueryChunk chunk, const Key* lists, int64_t slices) {
  SIMT_SHARED(TopkList, best, 1);
  const int k = static_cast<int>(a.k);
  const int64_t count = slices * k;
  const Key* mine = lists + blockIdx.x * count;
  clear(best[0]);
  __syncthreads();
  for (int64_t first = 0; first < count; first += topkThreads) {
    const int64_t i = first + threadIdx.x;
    offer(best[0], k, i < count ? mine[i] : noKey);
  }
  merge(best[0], k);
  for (int j = static_cast<int>(threadIdx.x); j < k; j += topkThreads)
    writeResult(a, chunk.begin + blockIdx.x, j, best[0].keys[j]);
}

/// keys: [chunk, items]. Block (t, s): item tile t, the s-th Q queries of the chunk.
template <int Q>
__global__ void __launch_bounds__(topkThreads)
    topkScores(TopkArgs a, const float* queryNorms, QueryChunk chunk, Key* keys) {
  const int64_t firstQuery = chunk.begin + int64_t{blockIdx.y} * Q, first = int64_t{blockIdx.x} * topkThreads;
  float products[Q];
  tileProducts<Q>(a.queries, floatItems(a), firstQuery, first, products);
  const int64_t item = first + threadIdx.x;
  if (item >= a.items.rows) return;
  for (int q = 0; q < Q && firstQuery + q < chunk.end; ++q) {
    const int64_t query = firstQuery + q;
    keys[(query - chunk.begin) * a.items.rows + item] =
        admits(a.filter, query, item) ? keyOf(rankedScore(a, queryNorms, query, item, products[q]), item) : noKey;
  }
}

/// Block (t, q): the t-th topkThreads places of the q-th query of the chunk, from its sorted keys [width].
__global__ void topkWrite(TopkArgs a, QueryChunk chunk, const Key* sorted, int64_t width) {
  const int64_t place = int64_t{blockIdx.x} * topkThreads + threadIdx.x;
  if (place >= a.k) return;
  writeResult(a, chunk.begin + blockIdx.y, place, place < width ? sorted[blockIdx.y * width + place] : noKey);
}

inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// How many queries to take at a time, so that `bytes` for each fit the workspace.
inline int64_t chunkQueries(const TopkPlan& plan, int64_t queries, int64_t bytes, int64_t most) {
  int64_t step = plan.workspaceBytes / bytes;
  step = step < 1 ? 1 : step > most ? most : step;
  return step < queries ? step : queries;
}

template <typename F>
void forChunks(const Exec& exec, int64_t queries, int64_t step, F&& body) {
  for (int64_t begin = 0; begin < queries && !exec.cancelled(); begin += step) {
    body(QueryChunk{begin, begin + step < queries ? begin + step : queries});
  }
}

/// k up to TopkList::capacity: one pass over the items for every Q queries.
template <int Q>
void topkListed(Queue& queue, const Exec& exec, const TopkArgs& a, const float* queryNorms, const TopkPlan& plan) {
  const int64_t itemTiles = ceilDiv(a.items.rows, topkThreads), queryTiles = ceilDiv(a.queries.rows, Q);
  int64_t slices = plan.slices > 0 ? plan.slices : ceilDiv(int64_t{4} * queue.multiprocessors(), queryTiles);
  slices = slices < itemTiles ? slices : itemTiles;
  const int64_t sliceItems = ceilDiv(itemTiles, slices > 0 ? slices : 1) * topkThreads;
  slices = itemTiles > 0 ? ceilDiv(a.items.rows, sliceItems) : 0;
  const int64_t perQuery = (slices > 0 ? slices : 1) * a.k * static_cast<int64_t>(sizeof(Key));
  const int64_t step = chunkQueries(plan, a.queries.rows, perQuery, INT32_MAX);
  Key* lists = queue.workspace<Key>(step * slices * a.k);
  forChunks(exec, a.queries.rows, step, [&](QueryChunk chunk) {
    const int64_t count = chunk.end - chunk.begin;
    if (slices > 0) {
      queue.launch("topkScan", topkScan<Q>, {ceilDiv(count, Q), slices}, topkThreads, a, queryNorms, chunk, sliceItems,
                   lists);
    }
    queue.launch("topkMerge", topkMerge, {count}, topkThreads, a, chunk, lists, slices);
  });
}

/// Any k: the keys of all items in memory.
inline void topkSelected(Queue& queue, const Exec& exec, const TopkArgs& a, const float* queryNorms,
                         const TopkPlan& plan) {
  const int64_t items = a.items.rows, k = a.k < items ? a.k : items, width = sortWidth(k);
  const int64_t perQuery = (items + width) * static_cast<int64_t>(sizeof(Key));
  const int64_t step = chunkQueries(plan, a.queries.rows, perQuery, selectQueries);
  Key* keys = queue.workspace<Key>(step * items);
  Key* sorted = queue.workspace<Key>(step * width);
  Selection* selections = queue.workspace<Selection>(step);
  forChunks(exec, a.queries.rows, step, [&](QueryChunk chunk) {
    const int64_t count = chunk.end - chunk.begin;
    if (items > 0) {
      queue.launch("topkScores", topkScores<topkQueries>, {ceilDiv(items, topkThreads), ceilDiv(count, topkQueries)},
                   topkThreads, a, queryNorms, chunk, keys);
    }
    selectBest(queue, keys, items, count, k, selections, sorted, width);
    queue.launch("topkWrite", topkWrite, {ceilDiv(a.k, topkThreads), count}, topkThreads, a, chunk, sorted, width);
  });
}

/// The `topk` slot. All pointers are to device memory; the work is queued on exec's stream.
inline Status topk(const Exec& exec, const TopkArgs& a, const TopkPlan& plan = {}) {
  if (a.items.type != FloatType::float32) {
    return failure(ErrorCode::device, "topk of 16-bit items is not available on device 'cuda' yet: use device 'cpu'");
  }
  Queue queue(exec);
  if (a.queries.rows == 0 || a.k == 0) return queue.status();
  float* queryNorms = nullptr;
  if (a.metric != Metric::innerProduct) {
    queryNorms = queue.workspace<float>(a.queries.rows);
    queue.launch("topkQueryNorms", topkQueryNorms, {ceilDiv(a.queries.rows * 32, topkThreads)}, topkThreads, a.queries,
                 queryNorms);
  }
  if (a.k > plan.largestListed) {
    topkSelected(queue, exec, a, queryNorms, plan);
  } else if (a.queries.rows == 1) {
    topkListed<1>(queue, exec, a, queryNorms, plan);
  } else {
    topkListed<topkQueries>(queue, exec, a, queryNorms, plan);
  }
  return queue.status();
}

}  // namespace topknot::cuda
