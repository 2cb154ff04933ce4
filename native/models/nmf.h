// Nonnegative matrix factorization: X ≈ W Hᵀ with W [users, f] and H [items, f] of no negative element. Minimises over
// the cells that `over` names, with λ_u = regularization, or that times the entries of the row,
//   frobenius  ½ Σ (x_ui - w_u·h_i)²                    + ½ Σ λ_u |w_u|² + ½ Σ λ_i |h_i|²
//   kl         Σ x_ui ln(x_ui / w_u·h_i) - x_ui + w_u·h_i  + the same
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/nmf_args.h"
#include "core/csr.h"
#include "core/fields.h"
#include "core/job.h"

namespace topknot {

TOPKNOT_ENUM(NmfLoss, "frobenius", "kl")

/// Which cells count: all, those without an entry being 0, or only the entries.
enum class NmfCells : int32_t { all, observed };
TOPKNOT_ENUM(NmfCells, "all", "observed")

struct NmfOptions {
  int64_t factors = 16;
  NmfLoss objective = NmfLoss::frobenius;
  NmfCells over = NmfCells::all;
  double regularization = 0.01;
  bool perEntry = false;  // λ times the entries of the row
  int64_t iterations = 50;
  int64_t seed = 42;
  bool computeLoss = false;
  std::optional<std::string> device;  // where a fit computes; the CPU unless given
  int64_t deviceBytes = 0;            // that it may take there; 0: what is free
};
TOPKNOT_FIELDS(NmfOptions, factors, objective, over, regularization, perEntry, iterations, seed, computeLoss, device,
               deviceBytes)

struct NmfFactors {
  Tensor userFactors, itemFactors;  // [users, factors], [items, factors]
  std::vector<double> loss;         // the objective after each iteration, when asked
};
TOPKNOT_FIELDS(NmfFactors, userFactors, itemFactors, loss)

namespace ops {

/// Sweeps over items, then users, `iterations` times. `items` is the transpose of `users`. Starts from the given
/// factors, which stay as they are; without them, from random ones keyed by (seed, row).
NmfFactors nmfFit(Job& job, Csr users, Csr items, std::optional<Tensor> userFactors, std::optional<Tensor> itemFactors,
                  NmfOptions options);

/// The factors [rows, factors] of the given rows with the other side fixed, to the minimum: fold-in.
Tensor nmfFold(Job& job, Csr rows, Tensor fixed, NmfOptions options);

}  // namespace ops
}  // namespace topknot
