// What the kernels of alternating least squares are given.
#pragma once
#include <cstdint>

#include "backend/views.h"

namespace topknot {

/// out = scale * mᵀm, [cols, cols], symmetric and full.
struct GramArgs {
  MatrixView m;
  float scale;
  float* out;
};

/// One half-sweep of ALS: for each row u solves
///   (gram + Σ_i w_ui y_i y_iᵀ + λ_u I) x_u = offset_u + Σ_i t_ui y_i     over the row's entries i,
/// with y = fixed and t_ui = w_ui + bonus unless targets are given. Rows without entries become zero; a system that is
/// not positive definite is ERR_VALUE. Implicit feedback: Hu, Koren, Volinsky 2008 (bonus 1); Rendle et al. 2022,
/// "Revisiting the performance of iALS" (bonus 0). Ratings: no gram, weights 1, the ratings as targets.
struct AlsArgs {
  CsrView rows;       // values: w_ui
  MatrixView fixed;   // [rows.cols, f]
  const float* gram;  // [f, f], already scaled by the unobserved weight; null: zero (Cholesky only)
  const float* reg;   // [rows] λ_u
  float bonus;
  int32_t steps;                   // conjugate gradient steps; unused by Cholesky
  float* out;                      // [rows, f]; conjugate gradient starts from what it holds
  const float* targets = nullptr;  // [nnz]; null: w_ui + bonus (Cholesky only)
  const float* offset = nullptr;   // [rows, f]; null: zero (Cholesky only)
};

/// The block π = [begin, begin + size) of the coordinates as AlsArgs take it (models/als_subspace.cpp): fixedBlock =
/// fixed_π, gramBlock = gram_ππ, offset = -λ_u x_π of every row, targets = w + bonus - w score of every entry.
struct AlsBlockArgs {
  CsrView rows;                      // values: w_ui
  MatrixView x, fixed;               // [rows.rows, f], [rows.cols, f]
  const float *gram, *reg, *scores;  // [f, f], [rows] λ_u, [nnz]
  float bonus;
  int64_t begin, size;
  float *fixedBlock, *gramBlock, *offset, *targets;  // [rows.cols, size], [size, size], [rows.rows, size], [nnz]
};

/// Columns [begin, begin + size) of x += step; of rows without entries they become zero.
struct AlsStepArgs {
  CsrView rows;
  const float* step;  // [rows.rows, size]
  int64_t f, begin, size;
  float* x;  // [rows.rows, f]
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

}  // namespace topknot
