// What the attention kernels share: which queries a block has, which keys they see, and the online softmax.
#pragma once
#include <cmath>
#include <type_traits>

#include "backend/attention_args.h"
#include "core/random.h"
#include "cuda/simt.h"

namespace topknot::cuda {

inline constexpr float log2e = 1.44269504088896341f, ln2 = 0.693147180559945309f;

template <typename T>
SIMT_DEVICE float number(const void* data, int64_t at) {
  if constexpr (std::is_same_v<T, float>) return static_cast<const float*>(data)[at];
  else return toFloat(static_cast<const BFloat16*>(data)[at]);
}

SIMT_DEVICE float minusInfinity() { return __uint_as_float(0xff800000u); }

/// Queries [begin, end) of sequence b, and the keys [firstKey, lastKey) that any of them may see.
struct AttentionTile {
  int64_t b, begin, end, keys, shift, firstKey, lastKey;
};

/// Tiles that cover all sequences, `rows` queries each. Packed sequences have offsets that the host cannot read:
/// sequence b gets the tiles from offset / rows + b on, which are enough for it; some of them are empty.
inline int64_t tileCount(const AttentionProblem& p, int64_t rows) {
  return p.queryOffsets ? p.queries / rows + p.batch : (p.queries + rows - 1) / rows * p.batch;
}

/// The sequence of a tile and its first row there, by the offsets of what it has rows of (null: padded).
SIMT_DEVICE void placeTile(const int64_t* offsets, int64_t batch, int64_t rows, int64_t index, int64_t& b,
                           int64_t& begin) {
  if (!offsets) {
    b = index % batch;
    begin = index / batch * rows;
    return;
  }
  int64_t low = 0, high = batch;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (offsets[middle] / rows + middle <= index) low = middle;
    else high = middle;
  }
  b = low;
  begin = (index - offsets[low] / rows - low) * rows;
}

/// The tile of sequence b from query `begin` on.
SIMT_DEVICE AttentionTile attentionTileAt(const AttentionProblem& p, int64_t rows, int64_t b, int64_t begin) {
  AttentionTile tile;
  tile.b = b;
  tile.begin = begin;
  const int64_t queries = p.queryCount(b);
  tile.keys = p.keyCount(b);
  tile.end = begin + rows < queries ? begin + rows : queries;
  tile.shift = tile.keys - queries;
  tile.firstKey = begin + tile.shift - p.left;
  if (tile.firstKey < 0) tile.firstKey = 0;
  tile.lastKey = tile.end + tile.shift + p.right;
  if (tile.lastKey > tile.keys) tile.lastKey = tile.keys;
  return tile;
}

/// The last queries first: under a causal mask they see the most keys.
SIMT_DEVICE AttentionTile attentionTile(const AttentionProblem& p, int64_t rows, int64_t index, int64_t tiles) {
  int64_t b, begin;
  placeTile(p.queryOffsets, p.batch, rows, tiles - 1 - index, b, begin);
  return attentionTileAt(p, rows, b, begin);
}

/// Whether query i sees key j of the tile's sequence.
template <typename Tile>
SIMT_DEVICE bool sees(const AttentionProblem& p, const Tile& tile, const uint8_t* mask, int64_t i, int64_t j) {
  const int64_t place = i + tile.shift;
  return j < tile.keys && j >= place - p.left && j <= place + p.right && (!mask || mask[j]);
}

/// What dropout multiplies the weight of a query (by its number among all rows) and key j with.
SIMT_DEVICE float keptShare(const AttentionProblem& p, int64_t row, int64_t j) {
  const auto words = philox(p.seed, static_cast<uint64_t>(row), static_cast<uint64_t>(j / 4));
  const int at = static_cast<int>(j % 4);  // selected rather than indexed, to stay in registers
  const uint32_t word = at == 0 ? words[0] : at == 1 ? words[1] : at == 2 ? words[2] : words[3];
  const float draw = static_cast<float>(word >> 8) * 0x1p-24f;
  return draw < p.dropout ? 0.0f : 1.0f / (1.0f - p.dropout);
}

/// The largest score so far and the sum of 2^(score - largest), both to base 2.
struct OnlineSoftmax {
  float largest, sum;

  __device__ void start() {
    largest = minusInfinity();
    sum = 0;
  }
  /// Takes in a larger score; answers what the sums so far must be multiplied by.
  __device__ float rescale(float score) {
    const float next = score > largest ? score : largest;
    const float factor = largest == minusInfinity() ? 0.0f : exp2f(largest - next);
    largest = next;
    sum *= factor;
    return factor;
  }
  /// The weight of a score. Where no key is seen, the largest is -inf and every weight 0.
  __device__ float weight(float score) const { return score == minusInfinity() ? 0.0f : exp2f(score - largest); }
  __device__ float logSumExp() const { return sum > 0 ? (largest + log2f(sum)) * ln2 : minusInfinity(); }
  __device__ float inverse() const { return sum > 0 ? 1.0f / sum : 0.0f; }
};

/// Calls f(std::integral_constant<int, D>) with the first of the sizes that holds `dims`.
template <int D, int... more, typename F>
void withDims(int64_t dims, F&& f) {
  if constexpr (sizeof...(more) == 0) {
    f(std::integral_constant<int, D>());
  } else if (dims <= D) {
    f(std::integral_constant<int, D>());
  } else {
    withDims<more...>(dims, f);
  }
}

SIMT_DEVICE bool isFinite(float x) { return x - x == 0; }

template <typename T>
SIMT_DEVICE void storeNumber(float x, void* data, int64_t at) {
  if constexpr (std::is_same_v<T, float>) static_cast<float*>(data)[at] = x;
  else static_cast<BFloat16*>(data)[at] = toBFloat16(x);
}

}  // namespace topknot::cuda
