// The scan behind every top-k: of floats (topk.cuh), codes (topk_int8.cuh), bits (topk_binary.cuh) and scores that are
// there already (select_topk.cuh).
//
// k up to 256: topkScan gives a block a slice of the items and a few queries. Its threads score one item each, offer
// what beats the block's threshold to a list in shared memory, and the block writes the list of its slice; topkMerge
// makes one of the lists of all slices. Larger k: topkScores writes the keys of all items, select.cuh takes the best.
//
// A Source scores tiles of pairs:
//   static constexpr bool sharesItems    whether queries gain from being taken topkQueries at a time
//   scores(firstQuery, firstItem, out)   out[q]: of query firstQuery + q and item firstItem + threadIdx.x, the greater
//                                        the better. By the whole block, behind a barrier
// An Output takes the k best of each query, see TopkOutput.
#pragma once
#include "cuda/kernels/pair_score.cuh"
#include "cuda/kernels/select.cuh"
#include "cuda/kernels/topk_filter.cuh"
#include "cuda/kernels/topk_list.cuh"

namespace topknot::cuda {

/// What a test sets to reach every path on small shapes.
struct TopkPlan {
  int64_t largestListed = TopkList::capacity;  // larger k goes through select.cuh
  int64_t workspaceBytes = int64_t{1} << 30;   // for the keys of a chunk of queries
  int64_t slices = 0;                          // 0: enough blocks to fill the device
  int64_t tensorQueries = 64;                  // so many queries and items take the tensor cores (topk_tensor.cuh)
  int64_t tensorItems = int64_t{1} << 15;
  uint8_t* done = nullptr;  // device memory [queries] that is told which queries they answered; null: no one asks
};

struct TopkSearch {
  int64_t queries, items, k;
  FilterView filter;
  const uint8_t* done = nullptr;  // [queries] 1: has its answer already; null: none has. For k up to largestListed
};

/// The queries [begin, end) that are worked on at a time.
struct QueryChunk {
  int64_t begin, end;
};

/// What an Output has unless it says otherwise. Beside these: write(chunk, local, place, key), by any thread, where
/// `local` is the query's place in the chunk; and score(query, item) where it rescores.
struct TopkOutput {
  /// Whether the k best are scored again and sorted by that: by score(), eight lanes for each (pair_score.cuh).
  static constexpr bool rescores = false;
  /// Memory for each query of a chunk; prepare() allocates it for `step` queries, finish() follows each chunk.
  int64_t chunkBytes() const { return 0; }
  void prepare(Queue&, int64_t) {}
  void finish(Queue&, QueryChunk) const {}
};

/// An Output: ids, and scores whose sign is turned where `negated`.
struct ScoredIds : TopkOutput {
  int64_t k;
  int32_t* ids;
  float* scores;
  bool negated;

  ScoredIds(int64_t k, int32_t* ids, float* scores, bool negated) : k(k), ids(ids), scores(scores), negated(negated) {}
  __device__ void write(QueryChunk chunk, int64_t local, int64_t place, Key key) const {
    const int64_t at = (chunk.begin + local) * k + place;
    ids[at] = key == noKey ? -1 : idOf(key);
    scores[at] = negated ? 0.0f - scoreOf(key) : scoreOf(key);
  }
};

/// The final key of one of a query's best, by eight lanes; noKey where there is none.
template <typename Output>
SIMT_DEVICE Key finalKey(const Output& output, int64_t query, Key key) {
  const float score = output.score(query, key == noKey ? -1 : idOf(key));
  return key == noKey ? noKey : keyOf(score, idOf(key));
}

/// Block (t, s): the t-th Q queries of the chunk, items [s sliceItems, (s + 1) sliceItems). lists: [chunk, slices, k].
template <int Q, typename Source>
__global__ void __launch_bounds__(topkThreads)
    topkScan(TopkSearch search, Source source, QueryChunk chunk, int64_t sliceItems, Key* lists) {
  SIMT_SHARED(TopkList, best, Q);
  const int k = static_cast<int>(search.k);
  const int64_t firstQuery = chunk.begin + int64_t{blockIdx.x} * Q;
  const int64_t begin = int64_t{blockIdx.y} * sliceItems;
  const int64_t end = begin + sliceItems < search.items ? begin + sliceItems : search.items;
  if (search.done) {
    bool all = true;
    for (int q = 0; q < Q && firstQuery + q < chunk.end; ++q) all = all && search.done[firstQuery + q];
    if (all) return;
  }
  for (int q = 0; q < Q; ++q) clear(best[q]);
  __syncthreads();

  for (int64_t first = begin; first < end; first += topkThreads) {
    if (tileIsDenied(search.filter, first, topkThreads, search.items)) continue;
    float scores[Q];
    source.scores(firstQuery, first, scores);
    const int64_t item = first + threadIdx.x;
    for (int q = 0; q < Q && firstQuery + q < chunk.end; ++q) {
      Key key = noKey;
      if (item < end) {
        key = keyOf(scores[q], item);
        // The filter reads memory: ask it only about items that would be kept.
        if (key > best[q].threshold && !admits(search.filter, firstQuery + q, item)) key = noKey;
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

/// Block q: the k best of the lists of the q-th query of the chunk.
template <typename Output>
__global__ void __launch_bounds__(topkThreads)
    topkMerge(TopkSearch search, Output output, QueryChunk chunk, const Key* lists, int64_t slices) {
  SIMT_SHARED(TopkList, best, 1);
  const int k = static_cast<int>(search.k), thread = static_cast<int>(threadIdx.x);
  if (search.done && search.done[chunk.begin + blockIdx.x]) return;
  const int64_t count = slices * k;
  const Key* mine = lists + blockIdx.x * count;
  clear(best[0]);
  __syncthreads();
  for (int64_t first = 0; first < count; first += topkThreads) {
    const int64_t i = first + threadIdx.x;
    offer(best[0], k, i < count ? mine[i] : noKey);
  }
  merge(best[0], k);
  if constexpr (Output::rescores) {
    for (int j = thread / pairLanes; j < TopkList::capacity; j += pairGroups) {
      const Key key = finalKey(output, chunk.begin + blockIdx.x, j < k ? best[0].keys[j] : noKey);
      if (pairLane() == 0) best[0].keys[j] = key;
    }
    __syncthreads();
    sortKeys(best[0].keys, TopkList::capacity);
  }
  for (int j = thread; j < k; j += topkThreads) output.write(chunk, blockIdx.x, j, best[0].keys[j]);
}

/// keys: [chunk, items]. Block (t, s): item tile t, the s-th Q queries of the chunk.
template <int Q, typename Source>
__global__ void __launch_bounds__(topkThreads)
    topkScores(TopkSearch search, Source source, QueryChunk chunk, Key* keys) {
  const int64_t firstQuery = chunk.begin + int64_t{blockIdx.y} * Q, first = int64_t{blockIdx.x} * topkThreads;
  float scores[Q];
  source.scores(firstQuery, first, scores);
  const int64_t item = first + threadIdx.x;
  if (item >= search.items) return;
  for (int q = 0; q < Q && firstQuery + q < chunk.end; ++q) {
    const int64_t query = firstQuery + q;
    keys[(query - chunk.begin) * search.items + item] =
        admits(search.filter, query, item) ? keyOf(scores[q], item) : noKey;
  }
}

/// keys[count, width) = noKey, by blocks (t, q).
SIMT_DEVICE void clearBehind(Key* keys, int64_t count, int64_t width) {
  for (int64_t i = count + int64_t{blockIdx.x} * pairThreads + threadIdx.x; i < width;
       i += int64_t{gridDim.x} * pairThreads) {
    keys[blockIdx.y * width + i] = noKey;
  }
}

/// Block (t, q): the final keys of the first `count` of the q-th query of the chunk; the others become noKey.
template <typename Output>
__global__ void __launch_bounds__(pairThreads)
    topkRescore(Output output, QueryChunk chunk, Key* keys, int64_t width, int64_t count) {
  const int64_t place = pairGroup();
  Key* mine = keys + blockIdx.y * width + place;
  const Key key = finalKey(output, chunk.begin + blockIdx.y, place < count ? *mine : noKey);
  if (place < count && pairLane() == 0) *mine = key;
  clearBehind(keys, count, width);
}

/// Block (t, q): places of the q-th query of the chunk, from its sorted keys [width].
template <typename Output>
__global__ void topkWrite(TopkSearch search, Output output, QueryChunk chunk, const Key* sorted, int64_t width) {
  const int64_t place = int64_t{blockIdx.x} * topkThreads + threadIdx.x;
  if (place >= search.k) return;
  output.write(chunk, blockIdx.y, place, place < width ? sorted[blockIdx.y * width + place] : noKey);
}

inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Slices of whole tiles of items, so that with `groups` blocks for each there are enough to fill the device.
struct Slices {
  int64_t count, items;
};
inline Slices slicesOf(Queue& queue, int64_t items, int64_t groups, int64_t wanted) {
  const int64_t tiles = ceilDiv(items, topkThreads);
  int64_t count = wanted > 0 ? wanted : ceilDiv(int64_t{4} * queue.multiprocessors(), groups);
  if (count > tiles) count = tiles;
  if (count == 0) return {0, 0};
  const int64_t each = ceilDiv(tiles, count) * topkThreads;
  return {ceilDiv(items, each), each};
}

/// Calls body(chunk) for as many queries at a time as `bytes` for each fit the workspace, at most `most`; before(step)
/// comes first.
template <typename Before, typename Body>
void forChunks(const Exec& exec, const TopkPlan& plan, int64_t queries, int64_t bytes, int64_t most, Before&& before,
               Body&& body) {
  int64_t step = plan.workspaceBytes / bytes;
  step = step < 1 ? 1 : step > most ? most : step;
  if (step > queries) step = queries;
  before(step);
  for (int64_t begin = 0; begin < queries && !exec.cancelled(); begin += step) {
    body(QueryChunk{begin, begin + step < queries ? begin + step : queries});
  }
}

/// k up to TopkList::capacity: one pass over the items for every Q queries.
template <int Q, typename Source, typename Output>
void topkListed(Queue& queue, const Exec& exec, const TopkSearch& search, const Source& source, Output output,
                const TopkPlan& plan) {
  const Slices slices = slicesOf(queue, search.items, ceilDiv(search.queries, Q), plan.slices);
  const int64_t listKeys = (slices.count > 0 ? slices.count : 1) * search.k;
  Key* lists = nullptr;
  forChunks(
      exec, plan, search.queries, listKeys * static_cast<int64_t>(sizeof(Key)) + output.chunkBytes(), selectQueries,
      [&](int64_t step) {
        lists = queue.workspace<Key>(step * listKeys);
        output.prepare(queue, step);
      },
      [&](QueryChunk chunk) {
        const int64_t count = chunk.end - chunk.begin;
        if (slices.count > 0) {
          queue.launch("topkScan", topkScan<Q, Source>, {ceilDiv(count, Q), slices.count}, topkThreads, search, source,
                       chunk, slices.items, lists);
        }
        queue.launch("topkMerge", topkMerge<Output>, {count}, topkThreads, search, output, chunk, lists, slices.count);
        output.finish(queue, chunk);
      });
}

/// Any k: the keys of all items in memory.
template <int Q, typename Source, typename Output>
void topkSelected(Queue& queue, const Exec& exec, const TopkSearch& search, const Source& source, Output output,
                  const TopkPlan& plan) {
  const int64_t items = search.items, k = search.k < items ? search.k : items, width = sortWidth(k);
  Key *keys = nullptr, *sorted = nullptr;
  Selection* selections = nullptr;
  forChunks(
      exec, plan, search.queries, (items + width) * static_cast<int64_t>(sizeof(Key)) + output.chunkBytes(),
      selectQueries,
      [&](int64_t step) {
        keys = queue.workspace<Key>(step * items);
        sorted = queue.workspace<Key>(step * width);
        selections = queue.workspace<Selection>(step);
        output.prepare(queue, step);
      },
      [&](QueryChunk chunk) {
        const int64_t count = chunk.end - chunk.begin;
        if (items > 0) {
          queue.launch("topkScores", topkScores<Q, Source>, {ceilDiv(items, topkThreads), ceilDiv(count, Q)},
                       topkThreads, search, source, chunk, keys);
        }
        selectBest(queue, keys, items, count, k, selections, sorted, width);
        if constexpr (Output::rescores) {
          if (k > 0) {
            queue.launch("topkRescore", topkRescore<Output>, {ceilDiv(k, pairGroups), count}, pairThreads, output,
                         chunk, sorted, width, k);
            sortRows(queue, sorted, width, count);
          }
        }
        queue.launch("topkWrite", topkWrite<Output>, {ceilDiv(search.k, topkThreads), count}, topkThreads, search,
                     output, chunk, sorted, width);
        output.finish(queue, chunk);
      });
}

/// The k best items of each query.
template <typename Source, typename Output>
void topkSearch(Queue& queue, const Exec& exec, const TopkSearch& search, const Source& source, const Output& output,
                const TopkPlan& plan) {
  if (search.queries == 0 || search.k == 0) return;
  constexpr int Q = Source::sharesItems ? topkQueries : 1;
  if (search.k > plan.largestListed) {
    topkSelected<Q>(queue, exec, search, source, output, plan);
  } else if (search.queries == 1) {
    topkListed<1>(queue, exec, search, source, output, plan);
  } else {
    topkListed<Q>(queue, exec, search, source, output, plan);
  }
}

}  // namespace topknot::cuda
