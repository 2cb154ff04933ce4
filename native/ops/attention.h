// What attention takes and returns beside its tensors.
#pragma once
#include <cstdint>
#include <optional>

#include "core/fields.h"
#include "core/tensor.h"

namespace topknot {

struct AttentionOptions {
  bool causal = false;                             // no key behind the query's own place
  std::optional<int64_t> left, right;              // the farthest keys before and behind it; without: no limit
  std::optional<double> scale;                     // 1 / sqrt(dims) unless given
  std::optional<Tensor> keyMask;                   // bool or uint8 [batch, keys], packed [keys]: 0 hides a key
  std::optional<Tensor> bias;                      // float32 [1 | batch, 1 | heads, queries, keys]; packed: or longer
  std::optional<Tensor> queryOffsets, keyOffsets;  // int32 or int64 [batch + 1]: packed sequences
  double dropout = 0;
  int64_t seed = 0;
};
TOPKNOT_FIELDS(AttentionOptions, causal, left, right, scale, keyMask, bias, queryOffsets, keyOffsets, dropout, seed)

struct AttentionResult {
  Tensor out;        // as q
  Tensor logSumExp;  // float32 [batch, heads, queries], packed [heads, queries]
};
TOPKNOT_FIELDS(AttentionResult, out, logSumExp)

struct AttentionGradients {
  Tensor q, k, v;              // as q, k and v
  std::optional<Tensor> bias;  // as the bias, where there is one
};
TOPKNOT_FIELDS(AttentionGradients, q, k, v, bias)

}  // namespace topknot
