// What the kernel of logistic matrix factorization is given.
#pragma once
#include <cstdint>

#include "backend/own_items.h"

namespace topknot {

/// One half-sweep with the other side (vectors y_i, biases c_i) as it is. Each row u, with vector x_u and bias b_u,
/// takes one Adagrad step up its objective
///   Σ_i α r_ui s_ui - (1 + α r_ui) ln(1 + e^s_ui)  -  Σ_j ln(1 + e^s_uj)  -  λ/2 (|x_u|² + b_u²),  s_ui = x_u·y_i +
///   b_u + c_i,
/// i over the row's entries, j over negatives drawn uniformly from the other side, `negatives` for each entry (for a
/// row without entries: `negatives`), never own items: with g the gradient and G the sums of squared gradients so far,
/// G += g², x_u += η g / (√G + 1e-8), each number by itself, and likewise the bias. Draws come from Random(seed, stream
/// + u). Johnson, "Logistic matrix factorization for implicit feedback data", NIPS 2014 workshop.
struct LogisticMfArgs {
  OwnItemsView own;  // values: r_ui
  int64_t stride;    // of all four matrices of factors: a multiple of 16; what is beyond the factors is 0
  const float *otherFactors, *otherBiases;
  float *factors, *biases;                // x, b
  float *squaredFactors, *squaredBiases;  // G
  int64_t negatives;
  uint64_t seed, stream;
  float alpha, rate, regularization;  // α, η, λ
};

}  // namespace topknot
