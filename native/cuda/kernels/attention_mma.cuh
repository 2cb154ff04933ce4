// Attention forward on tensor cores, bfloat16: a block of four warps has 64 queries of a head, a warp 16 of them, and
// walks over the keys in blocks of 64, two in flight (FlashAttention-2: Dao 2023). Scores and their weights stay in the
// registers of mma tiles; the weights of the first product are the left operand of the second as they lie.
#pragma once
#include "cuda/kernels/async_tiles.cuh"
#include "cuda/kernels/attention_tiles.cuh"

namespace topknot::cuda {

inline constexpr int mmaRows = 64, mmaKeys = 64, mmaThreads = 128;

/// Begins to copy `count` of the R rows of a tile, from the first on; what lies behind them and `dims` becomes zero.
template <int D, int R = mmaRows>
SIMT_DEVICE void fetchRows(uint16_t* tile, const uint16_t* rows, int64_t stride, int64_t first, int64_t count,
                           int64_t dims) {
  fetchTile<R, D, mmaThreads>(tile, rows, stride, first, first + count, 0, dims);
}

/// Whether tensor cores can take a call: bfloat16, heads of at most 128 numbers in whole aligned 16-byte pieces.
inline bool suitsMma(const AttentionProblem& p, std::initializer_list<const void*> arrays) {
  if (p.dtype != DType::bfloat16 || p.dims > 128 || p.dims % 8 != 0) return false;
  for (const AttentionLayout& layout : {p.queryLayout, p.keyLayout}) {
    if (layout.batch % 8 != 0 || layout.head % 8 != 0 || layout.row % 8 != 0) return false;
  }
  return aligned16(arrays);
}

template <int D>
inline constexpr int64_t mmaShared = int64_t{2} * D*(mmaRows + 4 * mmaKeys);

/// Block (t, h): tile t of head h. Lane l holds rows l / 4 and l / 4 + 8 of its warp's 16 queries.
template <int D>
__global__ void __launch_bounds__(mmaThreads) attentionMma(AttentionArgs a, int64_t tiles) {
  SIMT_DYNAMIC_SHARED(memory);
  const AttentionProblem& p = a.problem;
  const AttentionTile tile = attentionTile(p, mmaRows, blockIdx.x, tiles);
  if (tile.begin >= tile.end) return;  // the whole block alike
  uint16_t* queries = reinterpret_cast<uint16_t*>(memory);
  uint16_t* stages = queries + mmaRows * D;  // keys and values, twice
  const int64_t head = blockIdx.y, kvHead = head / (p.heads / p.kvHeads);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int group = lane / 4, quad = lane % 4;
  const int64_t keyStart = p.keyStart(tile.b, kvHead), rowStart = p.rowStart(tile.b, head);
  const uint16_t* k = static_cast<const uint16_t*>(a.k) + keyStart;
  const uint16_t* v = static_cast<const uint16_t*>(a.v) + keyStart;
  const float* bias = p.bias.of(tile.b, head);
  const uint8_t* mask = p.maskOf(tile.b);
  const int64_t first = tile.firstKey / mmaKeys, last = (tile.lastKey + mmaKeys - 1) / mmaKeys;
  const auto fetchKeys = [&](int64_t block) {
    uint16_t* stage = stages + block % 2 * (2 * mmaKeys * D);
    const int64_t count = tile.keys - block * mmaKeys;
    fetchRows<D>(stage, k, p.keyLayout.row, block * mmaKeys, count, p.dims);
    fetchRows<D>(stage + mmaKeys * D, v, p.keyLayout.row, block * mmaKeys, count, p.dims);
    commitCopies();
  };

  fetchRows<D>(queries, static_cast<const uint16_t*>(a.q) + p.queryStart(tile.b, head), p.queryLayout.row, tile.begin,
               tile.end - tile.begin, p.dims);
  if (first < last) fetchKeys(first);
  else commitCopies();

  float out[D / 8][4] = {};
  uint32_t query[D / 16][4];
  OnlineSoftmax softmax[2];
  const float scale = p.scale * log2e;
  for (OnlineSoftmax& s : softmax) s.start();
  const int64_t rows[2] = {tile.begin + warp * 16 + group, tile.begin + warp * 16 + group + 8};

  for (int64_t block = first; block < last; ++block) {
    if (block + 1 < last) {
      fetchKeys(block + 1);
      waitForCopies<1>();
    } else {
      waitForCopies<0>();
    }
    __syncthreads();
    uint16_t* keys = stages + block % 2 * (2 * mmaKeys * D);
    uint16_t* values = keys + mmaKeys * D;
    if (block == first) {
      SIMT_UNROLL
      for (int d = 0; d < D / 16; ++d) {
        loadMatrices(query[d], piece<D>(queries, warp * 16 + lane % 16, 2 * d + lane / 16));
      }
    }

    float score[mmaKeys / 8][4] = {};
    SIMT_UNROLL
    for (int d = 0; d < D / 16; ++d) {
      SIMT_UNROLL
      for (int n = 0; n < mmaKeys / 8; n += 2) {
        uint32_t key[4];
        loadMatrices(key, piece<D>(keys, (n + lane / 16) * 8 + lane % 8, 2 * d + lane / 8 % 2));
        mmaBf16(score[n], query[d], {key[0], key[1]});
        mmaBf16(score[n + 1], query[d], {key[2], key[3]});
      }
    }

    // Keys that no query of the tile may miss need no mask.
    const int64_t j0 = block * mmaKeys;
    const bool whole = !mask && j0 + mmaKeys <= tile.keys && j0 >= tile.end - 1 + tile.shift - p.left &&
                       j0 + mmaKeys - 1 <= tile.begin + tile.shift + p.right;
    float most[2] = {minusInfinity(), minusInfinity()};
    SIMT_UNROLL
    for (int n = 0; n < mmaKeys / 8; ++n) {
      SIMT_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int64_t i = rows[e / 2], j = j0 + n * 8 + quad * 2 + e % 2;
        float x = score[n][e] * scale;
        if (i >= tile.end || (!whole && !sees(p, tile, mask, i, j))) x = minusInfinity();
        else if (bias) x = fmaf(bias[i * p.bias.keys + j], log2e, x);
        score[n][e] = x;
        most[e / 2] = x > most[e / 2] || x != x ? x : most[e / 2];
      }
    }
    float factor[2];
    SIMT_UNROLL
    for (int r = 0; r < 2; ++r) {
      for (int distance = 1; distance < 4; distance *= 2) {
        const float other = __shfl_xor_sync(allLanes, most[r], distance);
        most[r] = other > most[r] || other != other ? other : most[r];
      }
      factor[r] = softmax[r].rescale(most[r]);
    }
    SIMT_UNROLL
    for (int n = 0; n < mmaKeys / 8; ++n) {
      SIMT_UNROLL
      for (int e = 0; e < 4; ++e) {
        float weight = softmax[e / 2].weight(score[n][e]);
        softmax[e / 2].sum += weight;
        if (p.dropout > 0) weight *= keptShare(p, rowStart + rows[e / 2], j0 + n * 8 + quad * 2 + e % 2);
        score[n][e] = weight;
      }
    }
    SIMT_UNROLL
    for (int n = 0; n < D / 8; ++n) {
      SIMT_UNROLL
      for (int e = 0; e < 4; ++e) out[n][e] *= factor[e / 2];
    }
    SIMT_UNROLL
    for (int j = 0; j < mmaKeys / 16; ++j) {
      const uint32_t weight[4] = {
          packBf16(score[2 * j][0], score[2 * j][1]), packBf16(score[2 * j][2], score[2 * j][3]),
          packBf16(score[2 * j + 1][0], score[2 * j + 1][1]), packBf16(score[2 * j + 1][2], score[2 * j + 1][3])};
      SIMT_UNROLL
      for (int n = 0; n < D / 8; n += 2) {
        uint32_t value[4];
        loadMatricesTransposed(value, piece<D>(values, j * 16 + lane % 16, n + lane / 16));
        mmaBf16(out[n], weight, {value[0], value[1]});
        mmaBf16(out[n + 1], weight, {value[2], value[3]});
      }
    }
    __syncthreads();  // before the next copies take this stage
  }
  if (first >= last) waitForCopies<0>();

  bool finite = true;
  SIMT_UNROLL
  for (int r = 0; r < 2; ++r) {
    for (int distance = 1; distance < 4; distance *= 2) {
      softmax[r].sum += __shfl_xor_sync(allLanes, softmax[r].sum, distance);
    }
    const int64_t i = rows[r];
    if (i >= tile.end) continue;
    const float inverse = softmax[r].inverse();
    uint16_t* to = static_cast<uint16_t*>(a.out) + p.queryStart(tile.b, head) + i * p.queryLayout.row;
    SIMT_UNROLL
    for (int n = 0; n < D / 8; ++n) {
      const float x = out[n][2 * r] * inverse, y = out[n][2 * r + 1] * inverse;
      finite = finite && isFinite(x) && isFinite(y);
      if (n * 8 < p.dims) *reinterpret_cast<uint32_t*>(to + n * 8 + quad * 2) = packBf16(x, y);
    }
    if (quad == 0) a.logSumExp[rowStart + i] = softmax[r].logSumExp();
  }
  if (!finite) atomicOr(a.notFinite, 1);
}

}  // namespace topknot::cuda
