// What the kernel of nonnegative matrix factorization is given.
#pragma once
#include <cstdint>

#include "backend/views.h"

namespace topknot {

enum class NmfLoss : int32_t { frobenius, kl };

/// One sweep over the rows w_u >= 0 of one side, the other side h >= 0 fixed: `passes` times, every coordinate of w_u
/// in turn goes to the minimum over it of
///   frobenius  ½ Σ_i (x_ui - w_u·h_i)² + ½ λ_u |w_u|²
///   kl         Σ_i (w_u·h_i - x_ui ln(w_u·h_i)) + ½ λ_u |w_u|²
/// i running over all columns, x being 0 where there is no entry, or over the entries of the row.
struct NmfArgs {
  CsrView rows;       // x >= 0
  MatrixView fixed;   // [rows.cols, f]
  const float* gram;  // [f, f] hᵀh and
  const float* sums;  // [f] the column sums of h, when i runs over all columns; null: over the entries
  const float* reg;   // [rows] λ_u
  NmfLoss loss;
  int32_t passes;
  float* out;  // [rows, f]; where it starts from
};

}  // namespace topknot
