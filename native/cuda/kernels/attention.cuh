// Attention forward, the CUDA side of cpu/kernels/attention.cpp: on tensor cores for bfloat16 (attention_mma.cuh; where
// asked for, attention_wgmma.cuh), else in float32 by the kernel here, where a block has 32 queries of a head and meets
// 32 keys at a time.
#pragma once
#include "cuda/kernels/attention_mma.cuh"
#include "cuda/kernels/attention_wgmma.cuh"

namespace topknot::cuda {

inline constexpr int plainRows = 32, plainKeys = 32, plainThreads = 256;
inline constexpr int64_t plainDims = 256;  // the largest head

/// tile[r][c] = row first + r, column c, for r < count and c < dims; zeros elsewhere. Rows are D + 1 apart.
template <typename T, int D, int R = plainRows>
SIMT_DEVICE void loadRows(float* tile, const void* data, int64_t start, int64_t stride, int64_t first, int64_t count,
                          int64_t dims) {
  for (int i = static_cast<int>(threadIdx.x); i < R * D; i += plainThreads) {
    const int row = i / D, column = i % D;
    const bool valid = row < count && column < dims;
    tile[row * (D + 1) + column] = valid ? number<T>(data, start + (first + row) * stride + column) : 0.0f;
  }
}

template <int D>
inline constexpr int64_t plainShared = int64_t{4} * (2 * plainRows * (D + 1) + plainRows * (plainKeys + 1));

/// Block (t, h): tile t of head h. Eight threads share a query: thread x of them has keys x, x + 8, ... of a block and
/// columns x, x + 8, ... of the result.
template <typename T, int D>
__global__ void __launch_bounds__(plainThreads) attentionPlain(AttentionArgs a, int64_t tiles) {
  SIMT_DYNAMIC_SHARED(memory);
  const AttentionProblem& p = a.problem;
  const AttentionTile tile = attentionTile(p, plainRows, blockIdx.x, tiles);
  if (tile.begin >= tile.end) return;  // the whole block alike
  float* queries = reinterpret_cast<float*>(memory);
  float* rows = queries + plainRows * (D + 1);  // keys, then values
  float* weights = rows + plainRows * (D + 1);
  const int64_t head = blockIdx.y, kvHead = head / (p.heads / p.kvHeads);
  const int x = static_cast<int>(threadIdx.x) % 8, y = static_cast<int>(threadIdx.x) / 8;
  const int64_t i = tile.begin + y, rowStart = p.rowStart(tile.b, head), keyStart = p.keyStart(tile.b, kvHead);
  const float* bias = p.bias.of(tile.b, head);
  const uint8_t* mask = p.maskOf(tile.b);
  loadRows<T, D>(queries, a.q, p.queryStart(tile.b, head), p.queryLayout.row, tile.begin, tile.end - tile.begin,
                 p.dims);

  OnlineSoftmax softmax;
  softmax.start();
  float out[D / 8] = {};
  for (int64_t j0 = tile.firstKey; j0 < tile.lastKey; j0 += plainKeys) {
    __syncthreads();
    loadRows<T, D>(rows, a.k, keyStart, p.keyLayout.row, j0, tile.keys - j0, p.dims);
    __syncthreads();
    float score[plainKeys / 8], most = minusInfinity();
    SIMT_UNROLL
    for (int n = 0; n < plainKeys / 8; ++n) {
      const int key = x + 8 * n;
      float dot = 0;
      for (int c = 0; c < D; ++c) dot = fmaf(queries[y * (D + 1) + c], rows[key * (D + 1) + c], dot);
      score[n] = minusInfinity();
      if (i < tile.end && sees(p, tile, mask, i, j0 + key)) {
        score[n] = dot * p.scale * log2e;
        if (bias) score[n] = fmaf(bias[i * p.bias.keys + j0 + key], log2e, score[n]);
      }
      most = score[n] > most || score[n] != score[n] ? score[n] : most;
    }
    for (int distance = 1; distance < 8; distance *= 2) {
      const float other = __shfl_xor_sync(allLanes, most, distance);
      most = other > most || other != other ? other : most;
    }
    const float factor = softmax.rescale(most);
    SIMT_UNROLL
    for (int n = 0; n < plainKeys / 8; ++n) {
      const float weight = softmax.weight(score[n]);
      softmax.sum += weight;
      const float kept = p.dropout > 0 ? keptShare(p, rowStart + i, j0 + x + 8 * n) : 1.0f;
      weights[y * (plainKeys + 1) + x + 8 * n] = weight * kept;
    }
    __syncthreads();
    loadRows<T, D>(rows, a.v, keyStart, p.keyLayout.row, j0, tile.keys - j0, p.dims);
    __syncthreads();
    SIMT_UNROLL
    for (int n = 0; n < D / 8; ++n) out[n] *= factor;
    for (int key = 0; key < plainKeys; ++key) {
      const float weight = weights[y * (plainKeys + 1) + key];
      SIMT_UNROLL
      for (int n = 0; n < D / 8; ++n) out[n] = fmaf(weight, rows[key * (D + 1) + x + 8 * n], out[n]);
    }
  }

  for (int distance = 1; distance < 8; distance *= 2) softmax.sum += __shfl_xor_sync(allLanes, softmax.sum, distance);
  if (i >= tile.end) return;
  const float inverse = softmax.inverse();
  const int64_t start = p.queryStart(tile.b, head) + i * p.queryLayout.row;
  bool finite = true;
  SIMT_UNROLL
  for (int n = 0; n < D / 8; ++n) {
    const int64_t c = x + 8 * n;
    const float value = out[n] * inverse;
    finite = finite && isFinite(value);
    if (c < p.dims) storeNumber<T>(value, a.out, start + c);
  }
  if (x == 0) a.logSumExp[rowStart + i] = softmax.logSumExp();
  if (!finite) atomicOr(a.notFinite, 1);
}

inline Status headTooLarge(const AttentionProblem& p) {
  return failure(ErrorCode::range, "q: expected heads of at most %d numbers on a GPU but received %lld",
                 static_cast<int>(plainDims), static_cast<long long>(p.dims));
}

/// The `attention` slot.
inline Status attention(const Exec& exec, const AttentionArgs& a) {
  Queue queue(exec);
  const AttentionProblem& p = a.problem;
  if (p.batch == 0 || p.queries == 0 || p.heads == 0) return queue.status();
  if (p.dims > plainDims) return headTooLarge(p);
  if (suitsMma(p, {a.q, a.k, a.v, a.out})) {
    if (sm90aChosen(queue) && suitsWgmma(p, a.q, a.k)) {
      queueAttentionWgmma(queue, a);
      return queue.status();
    }
    const int64_t tiles = tileCount(p, mmaRows);
    withDims<32, 64, 128>(p.dims, [&](auto dims) {
      constexpr int D = decltype(dims)::value;
      queue.launch("attentionMma", attentionMma<D>, {tiles, p.heads, mmaShared<D>}, mmaThreads, a, tiles);
    });
    return queue.status();
  }
  const int64_t tiles = tileCount(p, plainRows);
  withDims<32, 64, 128, 256>(p.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    const Grid grid{tiles, p.heads, plainShared<D>};
    if (p.dtype == DType::float32) {
      queue.launch("attentionPlain", attentionPlain<float, D>, grid, plainThreads, a, tiles);
    } else {
      queue.launch("attentionPlain", attentionPlain<BFloat16, D>, grid, plainThreads, a, tiles);
    }
  });
  return queue.status();
}

}  // namespace topknot::cuda
