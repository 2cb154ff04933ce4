// What the attention kernels are given. Two layouts share them: padded [batch, heads, length, dims], and packed
// [total, heads, dims], where sequence b has the rows [offsets[b], offsets[b + 1]).
#pragma once
#include <cstdint>

namespace topknot {

/// Where row i of head h of sequence b starts: (padded) b * batch + h * head + i * row; packed sequences add their
/// offset to i. In elements.
struct AttentionLayout {
  int64_t batch, head, row;
};

/// Query i of a sequence with n queries and m keys stands at key i + m - n: the last query at the last key.
/// It meets the keys from `left` before that place to `right` behind it.
struct AttentionProblem {
  int64_t batch, heads, kvHeads, dims;  // query head h reads key head h / (heads / kvHeads)
  int64_t queries, keys;                // padded: of each sequence; packed: the totals
  const int64_t* queryOffsets;          // [batch + 1], null: padded
  const int64_t* keyOffsets;            // [batch + 1], null: padded
  AttentionLayout queryLayout, keyLayout;
  int64_t left, right;
  float scale;
  const uint8_t* keyMask;  // [batch, keys], 0: nobody may see the key; null: all may be seen
  const float* bias;       // added to the scaled scores, row i at b * biasBatch + h * biasHead + i * keys; null: none
  int64_t biasBatch, biasHead;  // 0 where one bias serves all
  float dropout;                // probability that a weight becomes 0; the others grow by 1 / (1 - dropout)
  uint64_t seed;

  int64_t queryCount(int64_t b) const { return queryOffsets ? queryOffsets[b + 1] - queryOffsets[b] : queries; }
  int64_t keyCount(int64_t b) const { return keyOffsets ? keyOffsets[b + 1] - keyOffsets[b] : keys; }
  int64_t queryStart(int64_t b, int64_t h) const {
    return b * queryLayout.batch + h * queryLayout.head + (queryOffsets ? queryOffsets[b] * queryLayout.row : 0);
  }
  int64_t keyStart(int64_t b, int64_t kvHead) const {
    return b * keyLayout.batch + kvHead * keyLayout.head + (keyOffsets ? keyOffsets[b] * keyLayout.row : 0);
  }
  /// The place of query 0 of head h of sequence b in logSumExp, and in the numbering of rows for dropout.
  int64_t rowStart(int64_t b, int64_t h) const {
    return queryOffsets ? h * queries + queryOffsets[b] : (b * heads + h) * queries;
  }
};

/// out_i = Σ_j p_ij v_j, p_ij = exp(scale q_i·k_j + bias_ij - logSumExp_i), over the keys j that i may see; zeros where
/// there are none. Vaswani et al. 2017; tiled with an online softmax: Milakov and Gimelshein 2018, Dao et al. 2022.
struct AttentionArgs {
  AttentionProblem problem;
  const float *q, *k, *v;
  float* out;          // laid out as q
  float* logSumExp;    // [batch, heads, queries], packed [heads, queries]; -inf where a query sees no key
  int32_t* notFinite;  // becomes 1 when a result is not finite
};

/// The gradients of a sum over out whose gradient is outGradient. With p' = p after dropout and z = p' / p:
/// dv_j = Σ_i p'_ij do_i; ds_ij = p_ij (z_ij do_i·v_j - do_i·out_i), the gradient of the bias; dq_i = scale Σ_j ds_ij
/// k_j; dk_j = scale Σ_i ds_ij q_i. The weights are made again from logSumExp (Dao et al. 2022).
struct AttentionBackwardArgs {
  AttentionProblem problem;
  const float *q, *k, *v, *out, *logSumExp, *outGradient;
  float *qGradient, *kGradient, *vGradient;  // laid out as q, k, v
  float* biasGradient;                       // the shape of the bias; null: not wanted
  int64_t biasBatches, biasHeads;            // its first two dimensions
  int32_t* notFinite;
};

}  // namespace topknot
