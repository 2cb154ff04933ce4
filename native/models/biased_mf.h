// Biased matrix factorization for ratings: r̂_ui = μ + b_u + b_i + p_u·q_i, minimising over the observed ratings
//   Σ (r_ui - r̂_ui)² + λ (|p_u|² + b_u² + |q_i|² + b_i²),
// so a row with n ratings carries n λ. Koren, Bell, Volinsky, "Matrix factorization techniques for recommender
// systems", Computer 42(8), 2009; the weighting by n is that of Zhou, Wilkinson, Schreiber, Pan, "Large-scale parallel
// collaborative filtering for the Netflix prize", AAIM 2008. Without factors: the baseline μ + b_u + b_i.
#pragma once
#include <optional>
#include <string>

#include "models/ratings.h"

namespace topknot {

enum class BiasedMfSolver : int32_t { sgd, als };
TOPKNOT_ENUM(BiasedMfSolver, "sgd", "als")

struct BiasedMfOptions {
  int64_t factors = 64;
  BiasedMfSolver solver = BiasedMfSolver::sgd;
  int64_t iterations = 40;
  double learningRate = 0.01;
  double learningRateDecay = 1;  // epoch t uses learningRate * learningRateDecay^t
  double regularization = 0.1;
  double initStd = 0.1;  // vectors start as N(0, initStd²), biases at zero
  int64_t seed = 42;
  bool computeLoss = false;
  std::optional<std::string> device;  // where a fit computes; the CPU unless given
};
TOPKNOT_FIELDS(BiasedMfOptions, factors, solver, iterations, learningRate, learningRateDecay, regularization, initStd,
               seed, computeLoss, device)

namespace ops {

/// `iterations` epochs of stochastic gradient descent, each in an order of its own (rating_blocks.h), or sweeps of
/// alternating least squares: items with the users fixed, then users. `items` is the transpose of `users`. Starts from
/// the rows of a model, where given; a row of zeros there is somebody new, who starts at zero.
RatingRows biasedMfFit(Job& job, Csr users, Csr items, std::optional<Tensor> userRows, std::optional<Tensor> itemRows,
                       BiasedMfOptions options);

}  // namespace ops
}  // namespace topknot
