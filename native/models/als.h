// Alternating least squares for implicit feedback.
//
// Minimises over user factors x and item factors y, with w_ui = alpha * value of the observed cells and w0 the weight
// of every cell that was not observed:
//   ials  Σ_observed w_ui (1 - x_u·y_i)² + w0 Σ_all (x_u·y_i)² + regularization
//         Rendle, Krichene, Zhang, Koren, "Revisiting the performance of iALS on item recommendation", RecSys 2022
//   hkv   Σ_observed (w0 + w_ui) (1 - x_u·y_i)² + w0 Σ_others (x_u·y_i)² + regularization
//         Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008, where w0 is 1
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/csr.h"
#include "core/fields.h"
#include "core/job.h"
#include "core/tensor.h"

namespace topknot {

enum class AlsSolver : int32_t { cholesky, cg, subspace };
TOPKNOT_ENUM(AlsSolver, "cholesky", "cg", "subspace")

enum class AlsObjective : int32_t { ials, hkv };
TOPKNOT_ENUM(AlsObjective, "ials", "hkv")

/// The λ of a row with n entries: `constant`: regularization; `perEntry`: regularization * (n + w0 * rows of the other
/// side) ^ exponent, which is the form of Rendle et al. 2022 for exponent 1.
enum class AlsRegularization : int32_t { constant, perEntry };
TOPKNOT_ENUM(AlsRegularization, "constant", "perEntry")

struct AlsOptions {
  int64_t factors = 64;
  AlsSolver solver = AlsSolver::cholesky;
  int64_t cgSteps = 3;
  int64_t blockSize = 128;  // of the solver 'subspace'
  AlsObjective objective = AlsObjective::ials;
  double unobservedWeight = 0.1;
  double alpha = 1;
  double regularization = 0.003;
  AlsRegularization regularizationForm = AlsRegularization::perEntry;
  double regularizationExponent = 1;
  int64_t iterations = 16;
  int64_t seed = 42;
  double initStd = 0.1;  // factors start as N(0, initStd / √factors)
  bool computeLoss = false;
  std::string device = "cpu";  // where alsFit computes
  int64_t deviceBytes = 0;     // bytes that it may take there; 0: what is free
};
TOPKNOT_FIELDS(AlsOptions, factors, solver, cgSteps, blockSize, objective, unobservedWeight, alpha, regularization,
               regularizationForm, regularizationExponent, iterations, seed, initStd, computeLoss, device, deviceBytes)

struct AlsFactors {
  Tensor userFactors, itemFactors;  // [users, factors], [items, factors]
  std::vector<double> loss;         // after each iteration, when asked; with the regularization
};
TOPKNOT_FIELDS(AlsFactors, userFactors, itemFactors, loss)

namespace ops {

/// Alternates `iterations` times: users with the items fixed, then items. `items` is the transpose of `users`. Starts
/// from the given factors, which stay as they are; without them, from random ones keyed by (seed, row). On another
/// device than the CPU, matrices and factors are copied there once; where the matrices do not fit, blocks of rows are,
/// in every sweep.
AlsFactors alsFit(Job& job, Csr users, Csr items, std::optional<Tensor> userFactors, std::optional<Tensor> itemFactors,
                  AlsOptions options);

/// The factors [rows, factors] of the given rows with the other side fixed: fold-in. `gram` is alsGram(fixed), to be
/// kept by a caller that solves often. Conjugate gradients start from `start`, or from zero; the solver 'subspace',
/// which would take many sweeps, solves as 'cholesky' does. factors and iterations are not read. Solves where `fixed`
/// is, and leaves the result there; rows and `start` come from the host.
Tensor alsSolve(Job& job, Csr rows, Tensor fixed, std::optional<Tensor> gram, std::optional<Tensor> start,
                AlsOptions options);

/// factorsᵀ factors.
Tensor alsGram(Job& job, Tensor factors);

/// What each entry of one row adds to the score of item `target`: float32, one for each entry; they add up to the
/// score. Hu et al. 2008, section 5.
Tensor alsExplain(Job& job, Csr row, Tensor itemFactors, std::optional<Tensor> gram, int64_t target,
                  AlsOptions options);

}  // namespace ops
}  // namespace topknot
