// What the kernels of exact search and of evaluation are given.
#pragma once
#include <cstdint>

#include "backend/views.h"

namespace topknot {

enum class Metric : int32_t { innerProduct, cosine, l2 };

/// k best items for each query, best first; score descending, then id ascending.
struct TopkArgs {
  MatrixView queries;
  FloatMatrixView items;
  int64_t k;
  Metric metric;
  const float* itemNorms;  // [items] squared length of each item; for cosine and l2
  FilterView filter;
  int32_t* ids;   // [queries, k]; -1 where fewer than k items were allowed
  float* scores;  // [queries, k]; inner product, cosine, or squared distance (ascending); NaN behind -1
};

/// 8-bit codes of items: x ≈ scale * (code - 128), symmetric about zero, and at least the length of what that leaves
/// out.
struct Int8CodesArgs {
  FloatMatrixView items;
  bool unit;         // the codes of x / |x|
  uint8_t* codes;    // [rows, cols]
  float* scales;     // [rows]
  float* residuals;  // [rows]
};

/// The k best of the `candidates` best by the codes, with the scores of topk.
struct TopkInt8Args {
  TopkArgs topk;
  const uint8_t* codes;  // as Int8CodesArgs; unit for cosine
  const float* scales;
  const float* residuals;
  int64_t candidates;  // k or more
  uint8_t* proven;     // [queries] 1 where no other item can be among the k best; null: not asked for. Needs itemNorms
};

/// The k items in the least of whose bits each query differs.
struct TopkBinaryArgs {
  const uint8_t* queries;  // [queryCount, cols] bits
  const uint8_t* items;    // [rows, cols]
  int64_t queryCount, rows, cols;
  int64_t k;
  FilterView filter;
  int32_t* ids;   // [queryCount, k] as in TopkArgs
  float* scores;  // [queryCount, k] numbers of bits, rising
};

/// The same selection over scores that are already there.
struct SelectTopkArgs {
  MatrixView scores;  // [queries, items]
  int64_t k;
  FilterView filter;
  int32_t* ids;
  float* out;
};

/// For every entry (q, i) of positives: how many of the items that q may be given, its own positives aside, score above
/// item i, and how many score the same. Inner product.
struct RankCountsArgs {
  MatrixView queries, items;
  CsrView positives;  // [queries, items]; values unused
  FilterView filter;
  int32_t* above;  // [nnz]
  int32_t* equal;  // [nnz]
};

/// out[j] = users[userIds[j]] · items[itemIds[j]]
struct PairScoresArgs {
  MatrixView users, items;
  const int32_t* userIds;
  const int32_t* itemIds;
  int64_t count;
  float* out;
};

/// out[i] = |m_i|²
struct SquaredNormsArgs {
  FloatMatrixView m;
  float* out;
};

}  // namespace topknot
