// What the kernels of attention's backward pass share, next to attention_tiles.cuh: tiles of keys, and what a query
// brings along.
#pragma once
#include "cuda/kernels/attention_tiles.cuh"
#include "cuda/kernels/team.cuh"

namespace topknot::cuda {

/// Keys [begin, end) of sequence b, and the queries [firstQuery, lastQuery) that may see any of them. In 32 bits: what
/// a block keeps at hand takes registers from its sums.
struct AttentionKeyTile {
  int b, begin, end, keys, shift, firstQuery, lastQuery;
};

/// Tiles that cover the keys of all sequences; see tileCount.
inline int64_t keyTileCount(const AttentionProblem& p, int64_t rows) {
  return p.keyOffsets ? p.keys / rows + p.batch : (p.keys + rows - 1) / rows * p.batch;
}

/// The first keys first: under a causal mask the most queries see them.
SIMT_DEVICE AttentionKeyTile attentionKeyTile(const AttentionProblem& p, int64_t rows, int64_t index) {
  int64_t b, begin;
  placeTile(p.keyOffsets, p.batch, rows, index, b, begin);
  const int64_t queries = p.queryCount(b), keys = p.keyCount(b), shift = keys - queries;
  const int64_t end = begin + rows < keys ? begin + rows : keys;
  const int64_t first = begin - shift - p.right, last = end - shift + p.left;
  const auto local = [](int64_t n) { return static_cast<int>(n); };
  return {local(b),
          local(begin),
          local(end),
          local(keys),
          local(shift),
          local(first > 0 ? first : 0),
          local(last < queries ? last : queries)};
}

/// The log-sum-exp of a query to base 2, and do·out.
struct QueryTerms {
  float reference, delta;
};

/// Of query `at`. One that sees no key lies infinitely far above its scores, so that every weight is 0; so does one
/// that is not there.
SIMT_DEVICE QueryTerms queryTerms(const float* logSumExp, const float* delta, int64_t at, bool valid) {
  const float sum = valid ? logSumExp[at] : minusInfinity();
  return {sum == minusInfinity() ? -minusInfinity() : sum * log2e, valid ? delta[at] : 0.0f};
}

/// Warp r: delta[r] = do·out of the query that has place r in logSumExp.
template <typename T>
__global__ void __launch_bounds__(teamThreads) attentionDeltas(AttentionBackwardArgs a, int64_t rows, float* delta) {
  const AttentionProblem& p = a.problem;
  const int64_t row = teamRow<32>();
  if (row >= rows) return;
  const int64_t b = row / (p.heads * p.queries), h = row / p.queries % p.heads;  // packed: as if one sequence
  const int64_t start = b * p.queryLayout.batch + h * p.queryLayout.head + row % p.queries * p.queryLayout.row;
  float sum = 0;
  for (int64_t c = teamLane<32>(); c < p.dims; c += 32) {
    sum = fmaf(number<T>(a.outGradient, start + c), number<T>(a.out, start + c), sum);
  }
  sum = warpSum(sum);
  if (teamLane<32>() == 0) delta[row] = sum;
}

}  // namespace topknot::cuda
