// SVD++: rating prediction that also learns from which items a user has rated,
//   r̂_ui = μ + b_u + b_i + q_i·(p_u + n_u^-½ Σ_{j rated by u} y_j),
// minimising Σ (r_ui - r̂_ui)² + λ (|p_u|² + b_u² + |q_i|² + b_i² + |y_i|²) over the ratings. Koren, "Factorization
// meets the neighborhood: a multifaceted collaborative filtering model", KDD 2008, whose λ counts y_j once for each
// rating of each user of j; here it is once for each rating of j, as for q_j.
#pragma once
#include <optional>
#include <string>

#include "models/ratings.h"

namespace topknot {

struct SvdppOptions {
  int64_t factors = 20;
  int64_t iterations = 30;
  double learningRate = 0.005;
  double learningRateDecay = 1;
  double regularization = 0.1;
  double initStd = 0.1;
  int64_t seed = 42;
  bool computeLoss = false;
  std::optional<std::string> device;  // where a fit computes; the CPU unless given
};
TOPKNOT_FIELDS(SvdppOptions, factors, iterations, learningRate, learningRateDecay, regularization, initStd, seed,
               computeLoss, device)

struct SvdppRows {
  Tensor users, items;  // rows of a model (models/ratings.h); the users' without the y_j
  Tensor implicit;      // y: [items, factors]
  double mean = 0;
  std::vector<double> loss;
};
TOPKNOT_FIELDS(SvdppRows, users, items, implicit, mean, loss)

namespace ops {

/// Epochs of gradient descent over batches of 64 users (backend/rating_args.h): the users are dealt to batches at
/// random and the batches are visited in a random order, another one in each epoch. y starts at zero.
SvdppRows svdppFit(Job& job, Csr users, Csr items, std::optional<Tensor> userRows, std::optional<Tensor> itemRows,
                   std::optional<Tensor> implicit, SvdppOptions options);

/// The users' rows with p_u + n_u^-½ Σ y_j in place of p_u.
Tensor svdppUsers(Job& job, Csr users, Tensor own, Tensor implicit);

/// The users' rows, without the y_j, of users with these ratings, the items fixed: the least squares p_u and b_u.
Tensor svdppSolve(Job& job, Csr rows, Tensor itemRows, Tensor implicit, double mean, double regularization);

}  // namespace ops
}  // namespace topknot
