// Exact top-k for many queries on tensor cores. The answers are those of the plain path (topk_scan.cuh), bit for bit:
//
// 1. A pass in tf32 over a sample of the items gives each query a threshold: its C-th best score there, C > k.
// 2. A pass over all items, tile by tile, keeps the pairs whose tf32 score reaches their query's threshold, in a buffer
//    of each query. All other scores never leave registers. About C times the step of the sample are kept.
// 3. The C best of the buffer are scored as the plain path scores them, in float32 and in its order, and sorted.
// 4. With T the tf32 score that nothing left out exceeds and e a bound of |tf32 score - plain score| over all items, no
//    item that was left out has a plain score above T + e. Where the k-th plain score is above that, the k best are
//    the plain path's. The queries of which this does not hold (many near ties, full buffers, numbers that are not
//    finite) are searched by the plain path.
//
// Where TOPKNOT_SM90A=1 asks for it, topk_wgmma.cuh does the two passes, with other roundings.
//
// The bound e: rounding both factors to tf32 changes a product by 2^-10 + 2^-22 of itself at most (2^-11 where items
// have 16 bits), and Σ|qᵢxᵢ| <= |q||x|. Each step of eight columns may lose a few bits below float32's last where the
// hardware aligns its terms, for which 2^-20 is allowed; the plain sum errs by 2^-24 for each column.
#pragma once
#include "cuda/kernels/topk_wgmma.cuh"
#include "cuda/ptx.h"

namespace topknot::cuda {

inline constexpr int tensorThreads = 256, tensorTile = 128, tensorDepth = 32;
inline constexpr int tensorStride = tensorDepth + 4;  // the fragments of a warp lie in different banks
inline constexpr int64_t tensorSamples = 65536;       // at most, of all items
inline constexpr int64_t tensorStep = 8;              // at least, from one sample to the next
inline constexpr float tensorFaint = 1e-30f;          // squared lengths below have few digits, or none, in float32

/// tile[r][c] = column `column` + c of row (first + r) * step, as tf32; zeros behind the ends.
template <typename Rows>
SIMT_DEVICE void fillTensorTile(uint32_t* tile, const Rows& rows, int64_t first, int64_t step, int64_t column) {
  constexpr int packs = tensorDepth / 4;
  for (int i = static_cast<int>(threadIdx.x); i < tensorTile * packs; i += tensorThreads) {
    float x[4];
    rows.load((first + i / packs) * step, column + i % packs * 4, x);
    for (int e = 0; e < 4; ++e) tile[i / packs * tensorStride + i % packs * 4 + e] = toTf32(x[e]);
  }
}

/// Block b: one tile of queries by one tile of items, in eight warps of 64 x 32 pairs. Blocks of the same items are
/// neighbours.
template <RowFormat format, typename Sink>
__global__ void __launch_bounds__(tensorThreads) tensorTiles(TensorPass<format> p, Sink sink, int64_t queryTiles) {
  SIMT_SHARED(uint32_t, queryTile, (tensorTile * tensorStride));
  SIMT_SHARED(uint32_t, itemTile, (tensorTile * tensorStride));
  const int64_t firstQuery = p.chunk.begin + blockIdx.x % queryTiles * tensorTile;
  const int64_t firstPlace = blockIdx.x / queryTiles * tensorTile;
  if (p.step == 1 && tileIsDenied(p.filter, firstPlace, tensorTile, p.pairs.items.rows)) return;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int group = lane / 4, quad = lane % 4, warpRow = warp / 4 * 64, warpColumn = warp % 4 * 32;
  float sum[4][4][4] = {};
  for (int64_t column = 0; column < p.pairs.items.cols; column += tensorDepth) {
    fillTensorTile(queryTile, p.pairs.queries, firstQuery, 1, column);
    fillTensorTile(itemTile, p.pairs.items, firstPlace, p.step, column);
    __syncthreads();
    SIMT_UNROLL
    for (int d = 0; d < tensorDepth; d += 8) {
      uint32_t a[4][4];
      SIMT_UNROLL
      for (int i = 0; i < 4; ++i) {
        SIMT_UNROLL
        for (int e = 0; e < 4; ++e) {
          a[i][e] = queryTile[(warpRow + 16 * i + group + e % 2 * 8) * tensorStride + d + quad + e / 2 * 4];
        }
      }
      SIMT_UNROLL
      for (int j = 0; j < 4; ++j) {
        const uint32_t* from = itemTile + (warpColumn + 8 * j + group) * tensorStride + d + quad;
        const uint32_t b[2] = {from[0], from[4]};
        SIMT_UNROLL
        for (int i = 0; i < 4; ++i) mmaTf32(sum[i][j], a[i], b);
      }
    }
    __syncthreads();
  }
  SIMT_UNROLL
  for (int i = 0; i < 4; ++i) {
    SIMT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t query = firstQuery + warpRow + 16 * i + group + half * 8, local = query - p.chunk.begin;
      if (query >= p.chunk.end) continue;
      const Key least = sink.least(local);
      SIMT_UNROLL
      for (int j = 0; j < 4; ++j) {
        SIMT_UNROLL
        for (int e = 0; e < 2; ++e) {
          const int64_t place = firstPlace + warpColumn + 8 * j + quad * 2 + e, item = place * p.step;
          if (place >= p.count) continue;
          const float product = sum[i][j][half * 2 + e];
          Key key =
              keyOf(rankedScore(p.pairs.metric, p.pairs.queryNorms, p.pairs.itemNorms, query, item, product), item);
          if (key < least) continue;
          // The filter reads memory: ask it only about pairs that would be kept.
          sink.take(local, place, admits(p.filter, query, item) ? key : noKey);
        }
      }
    }
  }
}

/// Block q: the threshold of the q-th query of the chunk, from its best samples [width], and an empty buffer.
__global__ void __launch_bounds__(topkThreads)
    tensorStart(TensorBuffers buffers, const Key* samples, int64_t width, int64_t candidates) {
  for (int64_t i = threadIdx.x; i < buffers.capacity; i += topkThreads) {
    buffers.keys[blockIdx.x * buffers.capacity + i] = noKey;
  }
  if (threadIdx.x != 0) return;
  buffers.thresholds[blockIdx.x] = samples[blockIdx.x * width + candidates - 1];
  buffers.counts[blockIdx.x] = 0;
}

/// Block (t, q): the keys that the plain path has for the candidates of the q-th query of the chunk; last[q] = the tf32
/// key of the last of them.
template <RowFormat format>
__global__ void __launch_bounds__(topkThreads)
    tensorRescore(FloatPairs<format> p, QueryChunk chunk, Key* keys, int64_t width, int64_t candidates, Key* last) {
  const int64_t place = int64_t{blockIdx.x} * topkThreads + threadIdx.x, query = chunk.begin + blockIdx.y;
  if (place >= candidates) return;
  Key& mine = keys[blockIdx.y * width + place];
  const Key key = mine;
  if (place == candidates - 1) last[blockIdx.y] = key;
  if (key == noKey) return;
  const int64_t item = idOf(key);
  const AddProduct add;
  float sum = 0;
  for (int64_t c = 0; c < p.items.cols; c += 4) {
    float q[4], x[4];
    p.queries.load(query, c, q);
    p.items.load(item, c, x);
    for (int e = 0; e < 4; ++e) sum = add(sum, q[e], x[e]);
  }
  mine = keyOf(rankedScore(p.metric, p.queryNorms, p.itemNorms, query, item, sum), item);
}

/// *largest = the bits of the greatest |x|² of all items; those of NaN where one is not finite, or for cosine so short
/// that float32 loses digits of it.
template <RowFormat format>
__global__ void __launch_bounds__(pairThreads) largestNorm(FloatMatrixView items, bool cosine, unsigned* largest) {
  const int64_t groups = int64_t{gridDim.x} * pairGroups, rounds = (items.rows + groups - 1) / groups;
  unsigned most = 0;
  for (int64_t r = 0; r < rounds; ++r) {
    const int64_t row = r * groups + pairGroup();
    const bool inside = row < items.rows;
    const void* x = floatRow<format>(items.data, inside ? row : 0, items.cols);
    const float norm = static_cast<float>(pairDot<format, format>(x, x, inside ? items.cols : 0));
    const bool faint = cosine && norm > 0 && norm < tensorFaint;
    const unsigned bits = faint ? 0x7fc00000u : __float_as_uint(norm) & 0x7fffffffu;
    most = bits > most ? bits : most;
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    const unsigned other = __shfl_xor_sync(allLanes, most, distance);
    most = other > most ? other : most;
  }
  if (threadIdx.x % 32 == 0) atomicMax(largest, most);
}

/// Whether the k best of the sorted candidates of a query are proven to be the plain path's, where the factors' formats
/// change a product by `rounding` of itself at most. Eight lanes for each.
__global__ void __launch_bounds__(pairThreads)
    tensorProve(TopkArgs a, TensorBuffers buffers, QueryChunk chunk, const Key* sorted, int64_t width, const Key* last,
                const unsigned* largest, double rounding, uint8_t* done) {
  const int64_t local = pairGroup(), query = chunk.begin + local;
  const bool inside = query < chunk.end;
  const float* q = a.queries.data + (inside ? query : 0) * a.queries.cols;
  const double norm = pairDot<RowFormat::float32, RowFormat::float32>(q, q, inside ? a.queries.cols : 0);
  if (!inside || pairLane() != 0) return;
  const Key threshold = buffers.thresholds[local], kept = last[local];
  if (kept == noKey && threshold == noKey) {  // every item that may be returned is among the candidates
    done[query] = 1;
    return;
  }
  const double columns = static_cast<double>(a.items.cols), tiny = columns * 0x1p-120;
  const double relative = rounding + columns * 0x1p-22 + 0x1p-20;
  const double x = sqrt(static_cast<double>(__uint_as_float(*largest))) * (1 + 1e-6), y = sqrt(norm);
  double error = relative * x * y + tiny * (x + y + 1);
  if (a.metric == Metric::cosine) {
    const bool sound = x >= 0 && (norm == 0 || norm >= static_cast<double>(tensorFaint));  // false for NaN
    error = sound ? relative * 1.01 + 0x1p-21 : static_cast<double>(INFINITY);
  }
  if (a.metric == Metric::l2) error = 2 * error + 0x1p-21 * (x + y) * (x + y);
  const double highest = static_cast<double>(scoreOf(kept == noKey ? threshold : kept)) + error;
  const bool whole = buffers.counts[local] <= buffers.capacity;
  done[query] = whole && static_cast<double>(scoreOf(sorted[local * width + a.k - 1])) > highest;
}

/// done[q] becomes 1 for the queries that it answers.
template <RowFormat format>
void topkByTensorCores(Queue& queue, const Exec& exec, const TopkArgs& a, const FloatPairs<format>& pairs,
                       const TopkPlan& plan, uint8_t* done) {
  const bool wgmma = sm90aChosen(queue) && suitsTopkWgmma(a);
  const double rounding = wgmma ? wgmmaRounding<format> : 0x1.02p-10;
  const bool rough = rounding > 0x1p-8;  // more candidates, or the bound proves too little
  const int64_t items = a.items.rows, candidates = rough ? 2 * a.k + 64 : a.k + a.k / 4 + 32;
  const int64_t width = sortWidth(candidates);
  const int64_t sparse = ceilDiv(items, tensorSamples), step = sparse > tensorStep ? sparse : tensorStep;
  const int64_t samples = ceilDiv(items, step), capacity = 2 * step * candidates;
  const TopkSearch search{a.queries.rows, items, a.k, a.filter};
  const TopkResults<format> output(a);
  unsigned* largest = queue.zero<unsigned>();
  queue.launch("largestNorm", largestNorm<format>, {int64_t{8} * queue.multiprocessors()}, pairThreads, a.items,
               a.metric == Metric::cosine, largest);
  Key *sampled = nullptr, *sorted = nullptr, *last = nullptr;
  TensorBuffers buffers{};
  buffers.capacity = capacity;
  Selection* selections = nullptr;
  TopkWgmmaPass<format> tiles90;
  forChunks(
      exec, plan, a.queries.rows, (samples + capacity + width) * static_cast<int64_t>(sizeof(Key)), selectQueries,
      [&](int64_t most) {
        sampled = queue.workspace<Key>(most * samples);
        buffers.keys = queue.workspace<Key>(most * capacity);
        buffers.thresholds = queue.workspace<Key>(most);
        buffers.counts = queue.workspace<unsigned>(most);
        sorted = queue.workspace<Key>(most * width);
        last = queue.workspace<Key>(most);
        selections = queue.workspace<Selection>(most);
        if (wgmma) tiles90.prepare(queue, a, most);
      },
      [&](QueryChunk chunk) {
        const int64_t count = chunk.end - chunk.begin, queryTiles = ceilDiv(count, tensorTile);
        if (wgmma) tiles90.start(queue, a, chunk);
        const auto pass = [&](int64_t every, int64_t places, auto sink) {
          const TensorPass<format> given{pairs, a.filter, chunk, every, places};
          if (wgmma) return tiles90.run(queue, given, sink);
          queue.launch("tensorTiles", tensorTiles<format, decltype(sink)>, {queryTiles * ceilDiv(places, tensorTile)},
                       tensorThreads, given, sink, queryTiles);
        };
        pass(step, samples, SampleKeys{sampled, samples});
        selectBest(queue, sampled, samples, count, candidates, selections, sorted, width);
        queue.launch("tensorStart", tensorStart, {count}, topkThreads, buffers, sorted, width, candidates);
        pass(1, items, buffers);
        selectBest(queue, buffers.keys, capacity, count, candidates, selections, sorted, width);
        queue.launch("tensorRescore", tensorRescore<format>, {ceilDiv(candidates, topkThreads), count}, topkThreads,
                     pairs, chunk, sorted, width, candidates, last);
        sortRows(queue, sorted, width, count);
        queue.launch("tensorProve", tensorProve, pairGrid(count), pairThreads, a, buffers, chunk, sorted, width, last,
                     largest, rounding, done);
        queue.launch("topkRescore", topkRescore<TopkResults<format>>, {ceilDiv(a.k, pairGroups), count}, pairThreads,
                     output, chunk, sorted, width, a.k);
        sortRows(queue, sorted, width, count);
        queue.launch("topkWrite", topkWrite<TopkResults<format>>, {ceilDiv(a.k, topkThreads), count}, topkThreads,
                     search, output, chunk, sorted, width);
      });
}

}  // namespace topknot::cuda
