// Logistic matrix factorization: alternating gradient ascent with Adagrad on the chance that a user chooses an item.
// Johnson, "Logistic matrix factorization for implicit feedback data", NIPS 2014 workshop. The sum over all unobserved
// cells is replaced by one over drawn negatives, as the paper proposes and its implementations do; see
// backend/logistic_mf_args.h for the formulas.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "core/csr.h"
#include "core/fields.h"
#include "core/job.h"
#include "core/tensor.h"
#include "models/explained.h"

namespace topknot {

struct LogisticMfOptions {
  int64_t factors = 64;
  int64_t iterations = 60;
  double learningRate = 0.1;
  double regularization = 4;
  double alpha = 1;
  int64_t negatives = 5;
  double initStd = 0.1;  // factors start as N(0, initStd / √factors)
  int64_t seed = 42;
  std::optional<std::string> device;  // where a fit computes; the CPU unless given
  int64_t deviceBytes = 0;            // that it may take there; 0: what is free
};
TOPKNOT_FIELDS(LogisticMfOptions, factors, iterations, learningRate, regularization, alpha, negatives, initStd, seed,
               device, deviceBytes)

struct LogisticMfFactors {
  Tensor userFactors, itemFactors;  // [users, factors], [items, factors]
  Tensor userBiases, itemBiases;    // [users], [items]
};
TOPKNOT_FIELDS(LogisticMfFactors, userFactors, itemFactors, userBiases, itemBiases)

namespace ops {

/// Sweeps over items with the users fixed, then users. `items` is the transpose of `users`. Starts from the given
/// factors and biases, of which rows of zeros, like all where none are given, start at random, keyed by (seed, row).
/// Users without entries end with zeros.
LogisticMfFactors logisticMfFit(Job& job, Csr users, Csr items, std::optional<LogisticMfFactors> start,
                                LogisticMfOptions options);

/// Vector and bias, [rows, factors + 1], of other rows with the other side as it is: `iterations` steps from zero.
Tensor logisticMfFold(Job& job, Csr rows, Tensor fixedFactors, Tensor fixedBiases, LogisticMfOptions options);

/// What each interaction of one user adds to the score of item `target`, with the vector and the bias that
/// logisticMfFold finds. A step adds η g_k / D_k to number k, where g is a sum over the interactions, each with its
/// `negatives` draws, less λ times the number itself. So the number is a sum of what the interactions have given to it,
///   x = Σ_e x_e,  x_e,k += η (Σ_t∈e c_t y_t,k - λ x_e,k) / D_k  in each step,
/// and so is the score: after Pruthi, Liu, Sundararajan, Kale, "Estimating training data influence by tracing gradient
/// descent", NeurIPS 2020, but exact, since c and D are those of the very steps. The baseline is the item's bias.
Explained logisticMfExplain(Job& job, Csr row, Tensor itemFactors, Tensor itemBiases, int64_t target,
                            LogisticMfOptions options);

}  // namespace ops
}  // namespace topknot
