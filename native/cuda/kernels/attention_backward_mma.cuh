// Attention backward on tensor cores, bfloat16. A block of four warps owns 64 rows (of keys and values, or of queries
// and the gradients of their results), a warp 16 of them, and walks over the rows of the other side, fetching the next
// while it works on these. Scores and their gradients are made with the owned rows as rows of the mma tiles, so that
// the weights of dk, dv and dq are left operands as they lie (FlashAttention-2: Dao 2023).
#pragma once
#include "cuda/kernels/attention_backward_bias.cuh"
#include "cuda/kernels/attention_mma.cuh"

namespace topknot::cuda {

/// Two tensors of the same layout: keys and values, or queries and the gradients of their results.
struct BackwardSide {
  const uint16_t *first, *second;
  int64_t stride;
};

SIMT_DEVICE BackwardSide queriesOf(const AttentionBackwardArgs& a, int64_t b, int64_t head) {
  const int64_t start = a.problem.queryStart(b, head);
  return {static_cast<const uint16_t*>(a.q) + start, static_cast<const uint16_t*>(a.outGradient) + start,
          a.problem.queryLayout.row};
}
SIMT_DEVICE BackwardSide keysOf(const AttentionBackwardArgs& a, int64_t b, int64_t head) {
  const int64_t start = a.problem.keyStart(b, head / (a.problem.heads / a.problem.kvHeads));
  return {static_cast<const uint16_t*>(a.k) + start, static_cast<const uint16_t*>(a.v) + start,
          a.problem.keyLayout.row};
}

/// A distance as far as a tile can tell.
SIMT_DEVICE int nearby(int64_t distance) {
  return static_cast<int>(distance < -2 * mmaRows ? -2 * mmaRows : distance > 2 * mmaRows ? 2 * mmaRows : distance);
}

template <int D>
struct BackwardMma {
  static constexpr int N = 32;  // rows of the other side at a time: their scores stay in registers
  static constexpr int64_t bytes = int64_t{2} * D * (2 * mmaRows + 4 * N);
  uint16_t *own, *stages;  // [2][mmaRows][D] and, twice, [2][N][D]
  int lane, warp, group, quad;

  __device__ explicit BackwardMma(unsigned char* memory)
      : own(reinterpret_cast<uint16_t*>(memory)),
        stages(own + 2 * mmaRows * D),
        lane(static_cast<int>(threadIdx.x) % 32),
        warp(static_cast<int>(threadIdx.x) / 32),
        group(lane / 4),
        quad(lane % 4) {}
  __device__ uint16_t* stage(int step) const { return stages + step % 2 * (2 * N * D); }
  /// Of the two rows whose elements this thread has.
  __device__ int row(int half) const { return warp * 16 + group + 8 * half; }

  __device__ void fetchOwn(const BackwardSide& side, int64_t begin, int64_t end, int64_t dims) const {
    fetchRows<D>(own, side.first, side.stride, begin, end - begin, dims);
    fetchRows<D>(own + mmaRows * D, side.second, side.stride, begin, end - begin, dims);
  }
  __device__ void fetchStage(int step, const BackwardSide& side, int64_t begin, int64_t end, int64_t dims) const {
    fetchRows<D, N>(stage(step), side.first, side.stride, begin, end - begin, dims);
    fetchRows<D, N>(stage(step) + N * D, side.second, side.stride, begin, end - begin, dims);
  }

  /// products = the owned rows of tensor `which` times those of a stage, transposed.
  __device__ void multiply(int which, const uint16_t* other, float (&products)[N / 8][4]) const {
    const uint16_t* mine = own + which * mmaRows * D;
    other += which * N * D;
    SIMT_UNROLL
    for (int d = 0; d < D / 16; ++d) {
      uint32_t left[4];
      loadMatrices(left, piece<D>(mine, warp * 16 + lane % 16, 2 * d + lane / 16));
      SIMT_UNROLL
      for (int n = 0; n < N / 8; n += 2) {
        uint32_t right[4];
        loadMatrices(right, piece<D>(other, (n + lane / 16) * 8 + lane % 8, 2 * d + lane / 8 % 2));
        mmaBf16(products[n], left, {right[0], right[1]});
        mmaBf16(products[n + 1], left, {right[2], right[3]});
      }
    }
  }

  /// packBf16 by integer instructions: with its own, ptxas spills registers of the owned keys at D = 128.
  static __device__ uint32_t pack(float low, float high) {
    return toBFloat16(low).bits | static_cast<uint32_t>(toBFloat16(high).bits) << 16;
  }

  /// sums += weights (owned rows x rows of `other`) times other.
  __device__ void accumulate(const float (&weights)[N / 8][4], const uint16_t* other, float (&sums)[D / 8][4]) const {
    SIMT_UNROLL
    for (int j = 0; j < N / 16; ++j) {
      const auto &low = weights[2 * j], &high = weights[2 * j + 1];
      const uint32_t left[4] = {pack(low[0], low[1]), pack(low[2], low[3]), pack(high[0], high[1]),
                                pack(high[2], high[3])};
      SIMT_UNROLL
      for (int n = 0; n < D / 8; n += 2) {
        uint32_t right[4];
        loadMatricesTransposed(right, piece<D>(other, j * 16 + lane % 16, n + lane / 16));
        mmaBf16(sums[n], left, {right[0], right[1]});
        mmaBf16(sums[n + 1], left, {right[2], right[3]});
      }
    }
  }

  /// p' and ds of the owned rows from `ownBegin` on and the rows of a stage from `otherBegin` on; queries end at
  /// `queryEnd`.
  template <bool keysOwned, typename Tile>
  __device__ void score(const AttentionBackwardArgs& a, const Tile& tile, int64_t head, int64_t ownBegin,
                        int64_t otherBegin, int64_t queryEnd, const float* delta, const uint16_t* other,
                        float (&weights)[N / 8][4], float (&gradients)[N / 8][4]) const {
    const AttentionProblem& p = a.problem;
    SIMT_UNROLL
    for (int n = 0; n < N / 8; ++n) {
      SIMT_UNROLL
      for (int e = 0; e < 4; ++e) weights[n][e] = gradients[n][e] = 0;
    }
    multiply(0, other, weights);
    multiply(1, other, gradients);

    const int64_t i0 = keysOwned ? otherBegin : ownBegin, j0 = keysOwned ? ownBegin : otherBegin;
    const int64_t row = p.rowStart(tile.b, head) + i0, place = j0 - i0 - tile.shift;
    const float* logSumExp = a.logSumExp + row;
    const float* bias = p.bias.of(tile.b, head);
    const uint8_t* mask = p.maskOf(tile.b);
    if (bias) bias += i0 * p.bias.keys + j0;
    if (mask) mask += j0;
    delta += row;
    // From (i0, j0) on: query i sees key j where i < queries, j < keys and low <= j - i <= high.
    const int queries = nearby(queryEnd - i0), keys = nearby(tile.keys - j0);
    const int low = nearby(-p.left - place), high = nearby(p.right - place);
    constexpr int I = keysOwned ? N : mmaRows, J = keysOwned ? mmaRows : N;
    const bool whole = !mask && queries >= I && keys >= J && low <= 1 - I && high >= J - 1;
    const float scale = p.scale * log2e;
    QueryTerms terms[2];  // of the two queries that the elements e belong to
    SIMT_UNROLL
    for (int n = 0; n < N / 8; ++n) {
      if (keysOwned || n == 0) {
        SIMT_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int i = keysOwned ? n * 8 + quad * 2 + half : this->row(half);
          terms[half] = queryTerms(logSumExp, delta, i, i < queries);
        }
      }
      SIMT_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int mine = this->row(e / 2), theirs = n * 8 + quad * 2 + e % 2;
        const int i = keysOwned ? theirs : mine, j = keysOwned ? mine : theirs;
        const QueryTerms& term = terms[keysOwned ? e % 2 : e / 2];
        const bool seen = whole || (i < queries && j < keys && j - i >= low && j - i <= high && (!mask || mask[j]));
        float x = weights[n][e] * scale;
        if (!seen) x = minusInfinity();
        else if (bias) x = fmaf(bias[i * p.bias.keys + j], log2e, x);
        const float weight = exp2f(x - term.reference);
        const float kept = p.dropout > 0 ? keptShare(p, row + i, j0 + j) : 1.0f;
        weights[n][e] = weight * kept;
        gradients[n][e] = weight * (gradients[n][e] * kept - term.delta);
      }
    }
  }

  /// Writes factor * sums to the owned rows before `end`. Returns whether they are finite.
  __device__ bool store(const float (&sums)[D / 8][4], float factor, int64_t begin, int64_t end, int64_t stride,
                        int64_t dims, uint16_t* rows) const {
    bool finite = true;
    SIMT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t i = begin + row(half);
      if (i >= end) continue;
      SIMT_UNROLL
      for (int n = 0; n < D / 8; ++n) {
        const float x = sums[n][2 * half] * factor, y = sums[n][2 * half + 1] * factor;
        finite = finite && isFinite(x) && isFinite(y);
        if (n * 8 < dims) *reinterpret_cast<uint32_t*>(rows + i * stride + n * 8 + quad * 2) = packBf16(x, y);
      }
    }
    return finite;
  }
};

/// Block (t, h): tile t of keys, of head h of keys.
template <int D>
__global__ void __launch_bounds__(mmaThreads) attentionBackwardKeysMma(AttentionBackwardArgs a, const float* delta) {
  SIMT_DYNAMIC_SHARED(memory);
  constexpr int N = BackwardMma<D>::N;
  const AttentionProblem& p = a.problem;
  const AttentionKeyTile tile = attentionKeyTile(p, mmaRows, blockIdx.x);
  if (tile.begin >= tile.end) return;  // the whole block alike
  const BackwardMma<D> tiles(memory);
  const int shared = static_cast<int>(p.heads / p.kvHeads), firstHead = static_cast<int>(blockIdx.y) * shared;
  const int64_t queries = tile.lastQuery > tile.firstQuery ? tile.lastQuery - tile.firstQuery : 0;
  const int blocks = static_cast<int>((queries + N - 1) / N);  // of each head that shares the keys
  tiles.fetchOwn(keysOf(a, tile.b, firstHead), tile.begin, tile.end, p.dims);
  float keySum[D / 8][4] = {}, valueSum[D / 8][4] = {};
  pipelined(
      blocks * shared,
      [&](int step) {
        tiles.fetchStage(step, queriesOf(a, tile.b, firstHead + step / blocks), tile.firstQuery + step % blocks * N,
                         tile.lastQuery, p.dims);
      },
      [&](int step) {
        float weights[N / 8][4], gradients[N / 8][4];
        const uint16_t* stage = tiles.stage(step);
        tiles.template score<true>(a, tile, firstHead + step / blocks, tile.begin, tile.firstQuery + step % blocks * N,
                                   tile.lastQuery, delta, stage, weights, gradients);
        tiles.accumulate(weights, stage + N * D, valueSum);
        tiles.accumulate(gradients, stage, keySum);
      });
  const int64_t start = p.keyStart(tile.b, blockIdx.y);
  const auto store = [&](const float(&sums)[D / 8][4], float factor, void* to) {
    return tiles.store(sums, factor, tile.begin, tile.end, p.keyLayout.row, p.dims, static_cast<uint16_t*>(to) + start);
  };
  const bool keysFinite = store(keySum, p.scale, a.kGradient), valuesFinite = store(valueSum, 1, a.vGradient);
  if (!keysFinite || !valuesFinite) atomicOr(a.notFinite, 1);
}

/// Block (t, h): tile t of queries, of head h.
template <int D>
__global__ void __launch_bounds__(mmaThreads)
    attentionBackwardQueriesMma(AttentionBackwardArgs a, int64_t count, const float* delta) {
  SIMT_DYNAMIC_SHARED(memory);
  constexpr int N = BackwardMma<D>::N;
  const AttentionProblem& p = a.problem;
  const AttentionTile tile = attentionTile(p, mmaRows, blockIdx.x, count);
  if (tile.begin >= tile.end) return;
  const BackwardMma<D> tiles(memory);
  const int64_t head = blockIdx.y;
  const int64_t keys = tile.lastKey > tile.firstKey ? tile.lastKey - tile.firstKey : 0;
  const BackwardSide side = keysOf(a, tile.b, head);
  tiles.fetchOwn(queriesOf(a, tile.b, head), tile.begin, tile.end, p.dims);
  float sum[D / 8][4] = {};
  pipelined((keys + N - 1) / N,
            [&](int step) { tiles.fetchStage(step, side, tile.firstKey + step * N, tile.keys, p.dims); },
            [&](int step) {
              float weights[N / 8][4], gradients[N / 8][4];
              tiles.template score<false>(a, tile, head, tile.begin, tile.firstKey + step * N, tile.end, delta,
                                          tiles.stage(step), weights, gradients);
              tiles.accumulate(gradients, tiles.stage(step), sum);
            });
  uint16_t* to = static_cast<uint16_t*>(a.qGradient) + p.queryStart(tile.b, head);
  const bool finite = tiles.store(sum, p.scale, tile.begin, tile.end, p.queryLayout.row, p.dims, to);
  if (!finite) atomicOr(a.notFinite, 1);
}

/// Block (t, s): part s of tile t of the bias's gradient.
template <int D>
__global__ void __launch_bounds__(mmaThreads)
    attentionBackwardBiasMma(AttentionBackwardArgs a, BiasCut cut, const float* delta, float* out) {
  SIMT_DYNAMIC_SHARED(memory);
  constexpr int N = BackwardMma<D>::N;
  const AttentionProblem& p = a.problem;
  const BackwardMma<D> tiles(memory);
  const BiasTile place(cut, p, blockIdx.x);
  float sum[N / 8][4] = {};
  place.forShares(cut, p, blockIdx.y, [&](const AttentionTile& tile, int64_t head) {
    float weights[N / 8][4], gradients[N / 8][4];
    __syncthreads();
    tiles.fetchOwn(queriesOf(a, tile.b, head), tile.begin, tile.end, p.dims);
    tiles.fetchStage(0, keysOf(a, tile.b, head), place.column, tile.keys, p.dims);
    commitCopies();
    waitForCopies<0>();
    __syncthreads();
    tiles.template score<false>(a, tile, head, tile.begin, place.column, tile.end, delta, tiles.stage(0), weights,
                                gradients);
    SIMT_UNROLL
    for (int n = 0; n < N / 8; ++n) {
      SIMT_UNROLL
      for (int e = 0; e < 4; ++e) sum[n][e] += gradients[n][e];
    }
  });
  SIMT_UNROLL
  for (int n = 0; n < N / 8; ++n) {
    SIMT_UNROLL
    for (int e = 0; e < 4; ++e) {
      place.store(p, out, blockIdx.y, tiles.row(e / 2), n * 8 + tiles.quad * 2 + e % 2, sum[n][e]);
    }
  }
}

/// Whether the kernels here can take a call.
inline bool suitsMma(const AttentionBackwardArgs& a) {
  return suitsMma(a.problem, {a.q, a.k, a.v, a.outGradient, a.qGradient, a.kGradient, a.vGradient});
}

template <int D>
void queueBackwardMma(Queue& queue, const AttentionBackwardArgs& a, const float* delta) {
  constexpr int64_t shared = BackwardMma<D>::bytes;
  const AttentionProblem& p = a.problem;
  if (const int64_t tiles = keyTileCount(p, mmaRows); tiles > 0) {
    queue.launch("attentionBackwardKeysMma", attentionBackwardKeysMma<D>, {tiles, p.kvHeads, shared}, mmaThreads, a,
                 delta);
  }
  if (const int64_t tiles = tileCount(p, mmaRows); tiles > 0) {
    queue.launch("attentionBackwardQueriesMma", attentionBackwardQueriesMma<D>, {tiles, p.heads, shared}, mmaThreads, a,
                 tiles, delta);
  }
  queueBiasGradient(queue, a, mmaRows, BackwardMma<D>::N, [&](const BiasCut& cut, float* out) {
    queue.launch("attentionBackwardBiasMma", attentionBackwardBiasMma<D>, {cut.tiles, cut.parts, shared}, mmaThreads, a,
                 cut, delta, out);
  });
}

}  // namespace topknot::cuda
