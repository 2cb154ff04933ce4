// What the attention kernels are given. Two layouts share them: padded [batch, heads, length, dims], and packed
// [total, heads, dims], where sequence b has the rows [offsets[b], offsets[b + 1]).
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace topknot {

/// Where row i of head h of sequence b starts: (padded) b * batch + h * head + i * row; packed sequences add their
/// offset to i. In elements.
struct AttentionLayout {
  int64_t batch, head, row;
};

/// Added to the scaled scores of the first `queries` x `keys` pairs of a sequence: float32, row-major. One batch or one
/// head of it serves all.
struct AttentionBias {
  const float* data;  // null: none
  int64_t batches, heads, queries, keys;

  constexpr const float* of(int64_t b, int64_t h) const {
    return data ? data + ((batches == 1 ? 0 : b) * heads + (heads == 1 ? 0 : h)) * queries * keys : nullptr;
  }
};

/// Query i of a sequence with n queries and m keys stands at key i + m - n: the last query at the last key.
/// It meets the keys from `left` before that place to `right` behind it.
struct AttentionProblem {
  DType dtype;                          // of q, k, v, out and their gradients: float32, or bfloat16, summed in float32
  int64_t batch, heads, kvHeads, dims;  // query head h reads key head h / (heads / kvHeads)
  int64_t queries, keys;                // padded: of each sequence; packed: the totals
  const int64_t* queryOffsets;          // [batch + 1], null: padded
  const int64_t* keyOffsets;            // [batch + 1], null: padded
  AttentionLayout queryLayout, keyLayout;
  int64_t left, right;
  float scale;
  const uint8_t* keyMask;  // [batch, keys], packed [keys], 0: nobody may see the key; null: all may be seen
  AttentionBias bias;
  float dropout;  // probability that a weight becomes 0; the others grow by 1 / (1 - dropout)
  uint64_t seed;

  constexpr int64_t queryCount(int64_t b) const {
    return queryOffsets ? queryOffsets[b + 1] - queryOffsets[b] : queries;
  }
  constexpr int64_t keyCount(int64_t b) const { return keyOffsets ? keyOffsets[b + 1] - keyOffsets[b] : keys; }
  constexpr int64_t queryStart(int64_t b, int64_t h) const {
    return b * queryLayout.batch + h * queryLayout.head + (queryOffsets ? queryOffsets[b] * queryLayout.row : 0);
  }
  constexpr int64_t keyStart(int64_t b, int64_t kvHead) const {
    return b * keyLayout.batch + kvHead * keyLayout.head + (keyOffsets ? keyOffsets[b] * keyLayout.row : 0);
  }
  constexpr const uint8_t* maskOf(int64_t b) const {
    return keyMask ? keyMask + (keyOffsets ? keyOffsets[b] : b * keys) : nullptr;
  }
  /// The place of query 0 of head h of sequence b in logSumExp, and in the numbering of rows for dropout.
  constexpr int64_t rowStart(int64_t b, int64_t h) const {
    return queryOffsets ? h * queries + queryOffsets[b] : (b * heads + h) * queries;
  }
};

/// out_i = Σ_j p_ij v_j, p_ij = exp(scale q_i·k_j + bias_ij - logSumExp_i), over the keys j that i may see; zeros where
/// there are none. Vaswani et al. 2017; tiled with an online softmax: Milakov and Gimelshein 2018, Dao et al. 2022.
struct AttentionArgs {
  AttentionProblem problem;
  const void *q, *k, *v;
  void* out;           // laid out as q
  float* logSumExp;    // [batch, heads, queries], packed [heads, queries]; -inf where a query sees no key
  int32_t* notFinite;  // becomes 1 when a result is not finite
};

/// The gradients of a sum over out whose gradient is outGradient. With p' = p after dropout and z = p' / p:
/// dv_j = Σ_i p'_ij do_i; ds_ij = p_ij (z_ij do_i·v_j - do_i·out_i), the gradient of the bias; dq_i = scale Σ_j ds_ij
/// k_j; dk_j = scale Σ_i ds_ij q_i. The weights are made again from logSumExp (Dao et al. 2022).
struct AttentionBackwardArgs {
  AttentionProblem problem;
  const void *q, *k, *v, *out, *outGradient;
  const float* logSumExp;
  void *qGradient, *kGradient, *vGradient;  // laid out as q, k, v
  float* biasGradient;                      // the shape of the bias; null: not wanted
  int32_t* notFinite;
};

}  // namespace topknot
