// Attention backward, the CUDA side of cpu/kernels/attention_backward.cpp. One kernel has blocks of keys and walks over
// the queries that see them, for dk and dv; another has blocks of queries and walks over their keys, for dq; a third
// has pieces of the bias and walks over the heads that share it. Each makes the weights that it needs again, so that
// nothing is ever added by two blocks and the results depend on the sizes alone. bfloat16 goes to tensor cores
// (attention_backward_mma.cuh; where asked for, attention_backward_wgmma.cuh), the rest to the kernels here, in float32
// arithmetic.
#pragma once
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/attention_backward_mma.cuh"
#include "cuda/kernels/attention_backward_wgmma.cuh"

namespace topknot::cuda {

/// Queries and keys of a tile, for heads of up to D numbers.
template <int D>
inline constexpr int backwardRows = D <= 128 ? 32 : 16;

/// A tile of queries against a tile of keys in shared memory. plainThreads / R threads share a row.
template <typename T, int D>
struct BackwardTiles {
  static constexpr int R = backwardRows<D>, X = plainThreads / R, stride = D + 1;
  static constexpr int64_t bytes = int64_t{4} * (4 * R * stride + 2 * R * (R + 1));
  float *queries, *outGradients, *keys, *values;  // [R][stride]
  float *weights, *gradients;                     // [R][R + 1] p' and ds, a row for each query
  int x, y;                                       // of this thread: place in its row, row

  __device__ explicit BackwardTiles(unsigned char* memory)
      : queries(reinterpret_cast<float*>(memory)),
        outGradients(queries + R * stride),
        keys(outGradients + R * stride),
        values(keys + R * stride),
        weights(values + R * stride),
        gradients(weights + R * (R + 1)),
        x(static_cast<int>(threadIdx.x) % X),
        y(static_cast<int>(threadIdx.x) / X) {}

  __device__ void loadQueries(const AttentionBackwardArgs& a, int64_t b, int64_t head, int64_t begin, int64_t end) {
    const AttentionProblem& p = a.problem;
    const int64_t start = p.queryStart(b, head);
    loadRows<T, D, R>(queries, a.q, start, p.queryLayout.row, begin, end - begin, p.dims);
    loadRows<T, D, R>(outGradients, a.outGradient, start, p.queryLayout.row, begin, end - begin, p.dims);
  }
  __device__ void loadKeys(const AttentionBackwardArgs& a, int64_t b, int64_t kvHead, int64_t begin, int64_t end) {
    const AttentionProblem& p = a.problem;
    const int64_t start = p.keyStart(b, kvHead);
    loadRows<T, D, R>(keys, a.k, start, p.keyLayout.row, begin, end - begin, p.dims);
    loadRows<T, D, R>(values, a.v, start, p.keyLayout.row, begin, end - begin, p.dims);
  }

  /// Makes weights and gradients of the queries [i0, end) and the keys from j0 on.
  template <typename Tile>
  __device__ void score(const AttentionBackwardArgs& a, const Tile& tile, int64_t head, int64_t i0, int64_t end,
                        int64_t j0, const float* delta) {
    const AttentionProblem& p = a.problem;
    const float* bias = p.bias.of(tile.b, head);
    const uint8_t* mask = p.maskOf(tile.b);
    const int64_t i = i0 + y, row = p.rowStart(tile.b, head) + i;
    const QueryTerms terms = queryTerms(a.logSumExp, delta, row, i < end);
    SIMT_UNROLL
    for (int n = 0; n < R / X; ++n) {
      const int key = x + X * n;
      const int64_t j = j0 + key;
      float dot = 0, share = 0;
      for (int c = 0; c < D; ++c) {
        dot = fmaf(queries[y * stride + c], keys[key * stride + c], dot);
        share = fmaf(outGradients[y * stride + c], values[key * stride + c], share);
      }
      float score = minusInfinity();
      if (i < end && sees(p, tile, mask, i, j)) {
        score = dot * p.scale * log2e;
        if (bias) score = fmaf(bias[i * p.bias.keys + j], log2e, score);
      }
      const float weight = exp2f(score - terms.reference), kept = p.dropout > 0 ? keptShare(p, row, j) : 1.0f;
      weights[y * (R + 1) + key] = weight * kept;
      gradients[y * (R + 1) + key] = weight * (share * kept - terms.delta);
    }
  }
};

/// Block (t, h): tile t of keys, of head h of keys. Thread (x, y) has columns x, x + X, ... of key y.
template <typename T, int D>
__global__ void __launch_bounds__(plainThreads) attentionBackwardKeys(AttentionBackwardArgs a, const float* delta) {
  SIMT_DYNAMIC_SHARED(memory);
  using Tiles = BackwardTiles<T, D>;
  constexpr int R = Tiles::R, X = Tiles::X;
  const AttentionProblem& p = a.problem;
  const AttentionKeyTile tile = attentionKeyTile(p, R, blockIdx.x);
  if (tile.begin >= tile.end) return;  // the whole block alike
  Tiles tiles(memory);
  const int64_t kvHead = blockIdx.y, shared = p.heads / p.kvHeads;
  tiles.loadKeys(a, tile.b, kvHead, tile.begin, tile.end);
  float keySum[D / X] = {}, valueSum[D / X] = {};
  for (int64_t head = kvHead * shared; head < (kvHead + 1) * shared; ++head) {
    for (int64_t i0 = tile.firstQuery; i0 < tile.lastQuery; i0 += R) {
      const int64_t end = i0 + R < tile.lastQuery ? i0 + R : tile.lastQuery;
      __syncthreads();
      tiles.loadQueries(a, tile.b, head, i0, end);
      __syncthreads();
      tiles.score(a, tile, head, i0, end, tile.begin, delta);
      __syncthreads();
      for (int i = 0; i < R; ++i) {
        const float weight = tiles.weights[i * (R + 1) + tiles.y], gradient = tiles.gradients[i * (R + 1) + tiles.y];
        SIMT_UNROLL
        for (int n = 0; n < D / X; ++n) {
          const int at = i * Tiles::stride + tiles.x + X * n;
          valueSum[n] = fmaf(weight, tiles.outGradients[at], valueSum[n]);
          keySum[n] = fmaf(gradient, tiles.queries[at], keySum[n]);
        }
      }
    }
  }
  const int64_t j = tile.begin + tiles.y, start = p.keyStart(tile.b, kvHead) + j * p.keyLayout.row;
  if (j >= tile.end) return;
  bool finite = true;
  SIMT_UNROLL
  for (int n = 0; n < D / X; ++n) {
    const int64_t c = tiles.x + X * n;
    const float key = keySum[n] * p.scale;
    finite = finite && isFinite(key) && isFinite(valueSum[n]);
    if (c >= p.dims) continue;
    storeNumber<T>(key, a.kGradient, start + c);
    storeNumber<T>(valueSum[n], a.vGradient, start + c);
  }
  if (!finite) atomicOr(a.notFinite, 1);
}

/// Block (t, h): tile t of queries, of head h. Thread (x, y) has columns x, x + X, ... of query y.
template <typename T, int D>
__global__ void __launch_bounds__(plainThreads)
    attentionBackwardQueries(AttentionBackwardArgs a, int64_t count, const float* delta) {
  SIMT_DYNAMIC_SHARED(memory);
  using Tiles = BackwardTiles<T, D>;
  constexpr int R = Tiles::R, X = Tiles::X;
  const AttentionProblem& p = a.problem;
  const AttentionTile tile = attentionTile(p, R, blockIdx.x, count);
  if (tile.begin >= tile.end) return;
  Tiles tiles(memory);
  const int64_t head = blockIdx.y, kvHead = head / (p.heads / p.kvHeads);
  tiles.loadQueries(a, tile.b, head, tile.begin, tile.end);
  float sum[D / X] = {};
  for (int64_t j0 = tile.firstKey; j0 < tile.lastKey; j0 += R) {
    __syncthreads();
    tiles.loadKeys(a, tile.b, kvHead, j0, tile.keys);
    __syncthreads();
    tiles.score(a, tile, head, tile.begin, tile.end, j0, delta);
    __syncthreads();
    for (int j = 0; j < R; ++j) {
      const float gradient = tiles.gradients[tiles.y * (R + 1) + j];
      SIMT_UNROLL
      for (int n = 0; n < D / X; ++n) {
        sum[n] = fmaf(gradient, tiles.keys[j * Tiles::stride + tiles.x + X * n], sum[n]);
      }
    }
  }
  const int64_t i = tile.begin + tiles.y, start = p.queryStart(tile.b, head) + i * p.queryLayout.row;
  if (i >= tile.end) return;
  bool finite = true;
  SIMT_UNROLL
  for (int n = 0; n < D / X; ++n) {
    const int64_t c = tiles.x + X * n;
    const float value = sum[n] * p.scale;
    finite = finite && isFinite(value);
    if (c < p.dims) storeNumber<T>(value, a.qGradient, start + c);
  }
  if (!finite) atomicOr(a.notFinite, 1);
}

/// Block (t, s): part s of tile t of the bias's gradient.
template <typename T, int D>
__global__ void __launch_bounds__(plainThreads)
    attentionBackwardBias(AttentionBackwardArgs a, BiasCut cut, const float* delta, float* out) {
  SIMT_DYNAMIC_SHARED(memory);
  using Tiles = BackwardTiles<T, D>;
  constexpr int R = Tiles::R, X = Tiles::X;
  const AttentionProblem& p = a.problem;
  Tiles tiles(memory);
  const BiasTile place(cut, p, blockIdx.x);
  float sum[R / X] = {};
  place.forShares(cut, p, blockIdx.y, [&](const AttentionTile& tile, int64_t head) {
    __syncthreads();
    tiles.loadQueries(a, tile.b, head, tile.begin, tile.end);
    tiles.loadKeys(a, tile.b, head / (p.heads / p.kvHeads), place.column, tile.keys);
    __syncthreads();
    tiles.score(a, tile, head, tile.begin, tile.end, place.column, delta);
    SIMT_UNROLL
    for (int n = 0; n < R / X; ++n) sum[n] += tiles.gradients[tiles.y * (R + 1) + tiles.x + X * n];  // its own
  });
  SIMT_UNROLL
  for (int n = 0; n < R / X; ++n) place.store(p, out, blockIdx.y, tiles.y, tiles.x + X * n, sum[n]);
}

template <typename T, int D>
void queueBackwardPlain(Queue& queue, const AttentionBackwardArgs& a, const float* delta) {
  constexpr int64_t shared = BackwardTiles<T, D>::bytes, R = backwardRows<D>;
  const AttentionProblem& p = a.problem;
  if (const int64_t tiles = keyTileCount(p, R); tiles > 0) {
    queue.launch("attentionBackwardKeys", attentionBackwardKeys<T, D>, {tiles, p.kvHeads, shared}, plainThreads, a,
                 delta);
  }
  if (const int64_t tiles = tileCount(p, R); tiles > 0) {
    queue.launch("attentionBackwardQueries", attentionBackwardQueries<T, D>, {tiles, p.heads, shared}, plainThreads, a,
                 tiles, delta);
  }
  queueBiasGradient(queue, a, R, R, [&](const BiasCut& cut, float* out) {
    queue.launch("attentionBackwardBias", attentionBackwardBias<T, D>, {cut.tiles, cut.parts, shared}, plainThreads, a,
                 cut, delta, out);
  });
}

/// The `attentionBackward` slot.
inline Status attentionBackward(const Exec& exec, const AttentionBackwardArgs& a) {
  Queue queue(exec);
  const AttentionProblem& p = a.problem;
  if (p.dims > plainDims) return headTooLarge(p);
  const auto backward = [&](auto number) {
    using T = decltype(number);
    const int64_t rows = p.heads * p.queries * (p.queryOffsets ? 1 : p.batch);
    float* delta = queue.workspace<float>(rows);
    if (rows > 0) queue.launch("attentionDeltas", attentionDeltas<T>, teamGrid<32>(rows), teamThreads, a, rows, delta);
    if (suitsMma(a) && sm90aChosen(queue) && suitsWgmma(a)) {
      queueBackwardWgmma(queue, a, delta);
    } else if (suitsMma(a)) {
      withDims<32, 64, 128>(p.dims, [&](auto dims) { queueBackwardMma<decltype(dims)::value>(queue, a, delta); });
    } else {
      withDims<32, 64, 128, 256>(p.dims,
                                 [&](auto dims) { queueBackwardPlain<T, decltype(dims)::value>(queue, a, delta); });
    }
  };
  if (p.dtype == DType::float32) backward(float{});
  else backward(BFloat16{});
  return queue.status();
}

}  // namespace topknot::cuda
