// What the kernels of exact search and of evaluation are given.
#pragma once
#include <cstdint>

#include "backend/views.h"

namespace topknot {

enum class Metric : int32_t { innerProduct, cosine, l2 };

/// k best items for each query, best first; score descending, then id ascending.
struct TopkArgs {
  MatrixView queries, items;
  int64_t k;
  Metric metric;
  const float* itemNorms;  // [items] squared length of each item; for cosine and l2
  FilterView filter;
  int32_t* ids;   // [queries, k]; -1 where fewer than k items were allowed
  float* scores;  // [queries, k]; inner product, cosine, or squared distance (ascending); NaN behind -1
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
  MatrixView m;
  float* out;
};

}  // namespace topknot
