// What kernels are given: plain structs of pointers, the same for every backend and safe to pass to a plugin.
// All matrices are row-major. Shapes have been checked by ops/; kernels only assert.
#pragma once
#include <cstdint>

#include "backend/attention_args.h"
#include "backend/embedding_args.h"

namespace topknot {

struct MatrixView {
  const float* data;
  int64_t rows, cols;

  const float* row(int64_t i) const { return data + i * cols; }
};

struct CsrView {
  const int64_t* indptr;   // [rows + 1]
  const int32_t* indices;  // [nnz], rising within a row
  const float* values;     // [nnz]
  int64_t rows, cols;
};

/// Which items may be returned for a query. Applied before selection.
struct FilterView {
  const uint64_t* allowed = nullptr;  // bit i of word i / 64 set: item i may be returned; null: all may
  const int64_t* seenPtr = nullptr;   // CSR of item ids not to return to a row; null: none
  const int32_t* seenIds = nullptr;
  const int32_t* seenRows = nullptr;  // [queries] row of the CSR for each query; null: query q has row q
};

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

/// out = scale * mᵀm, [cols, cols], symmetric and full.
struct GramArgs {
  MatrixView m;
  float scale;
  float* out;
};

/// One half-sweep of implicit ALS: for each row u solves
///   (gram + Σ_i w_ui y_i y_iᵀ + λ_u I) x_u = Σ_i (w_ui + bonus) y_i     over the row's entries i,
/// with y = fixed. Rows without entries become zero; a system that is not positive definite is ERR_VALUE.
/// Hu, Koren, Volinsky 2008 (bonus 1); Rendle et al. 2022, "Revisiting the performance of iALS" (bonus 0).
struct AlsArgs {
  CsrView rows;       // values: w_ui
  MatrixView fixed;   // [rows.cols, f]
  const float* gram;  // [f, f], already scaled by the unobserved weight
  const float* reg;   // [rows] λ_u
  float bonus;
  int32_t steps;  // conjugate gradient steps; unused by Cholesky
  float* out;     // [rows, f]; conjugate gradient starts from what it holds
};

/// *out = Σ_u Σ_i [(w_ui + bonus) (1 - x_u·y_i)² - bonus (x_u·y_i)²] + unobservedWeight Σ_u x_uᵀ gram x_u,
/// the part of the ALS objective without regularisation; i runs over the entries of row u.
struct AlsLossArgs {
  CsrView rows;       // values: w_ui
  MatrixView x, y;    // [rows.rows, f], [rows.cols, f]
  const float* gram;  // yᵀy, unscaled
  float unobservedWeight, bonus;
  double* out;
};

/// Reads `data` once, from front to back: the memory limit that the benchmarks compare with.
struct MeasureReadArgs {
  const float* data;
  int64_t count;
  double* out;  // the sum, so that no read can be left out
};

/// `tasks` chains of fused multiply-adds in registers: the arithmetic limit that the benchmarks compare with.
struct MeasureFmaArgs {
  int64_t tasks;
  float a, b;      // x = x * a + b
  double* out;     // the sum, so that no operation can be left out
  int64_t* flops;  // operations done, a multiply-add being two
};

}  // namespace topknot
