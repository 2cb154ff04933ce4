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

}  // namespace topknot
