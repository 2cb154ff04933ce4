// Bayesian personalized ranking from implicit feedback: stochastic gradient ascent on
//   Σ ln σ(s_i - s_j) - λ/2 (|x_u|² + |y_i|² + |y_j|² + b_i² + b_j²),  s_i = x_u·y_i + b_i
// over positives (u, i), each once in an epoch, and a drawn item j that u has not chosen.
// Rendle, Freudenthaler, Gantner, Schmidt-Thieme, UAI 2009.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/csr.h"
#include "core/fields.h"
#include "core/job.h"
#include "core/tensor.h"
#include "models/explained.h"

namespace topknot {

/// How negatives are drawn: all items alike; by how many users chose them; or the best-scored of some drawn alike.
enum class BprSampling : int32_t { uniform, popularity, hard };
TOPKNOT_ENUM(BprSampling, "uniform", "popularity", "hard")

struct BprOptions {
  int64_t factors = 64;
  int64_t iterations = 100;  // epochs
  double learningRate = 0.05;
  double regularization = 0.01;
  BprSampling negativeSampling = BprSampling::uniform;
  int64_t candidates = 8;  // of hard sampling
  bool biases = false;
  double initStd = 0.1;  // factors start as N(0, initStd / √factors)
  int64_t seed = 42;
  bool hogwild = false;
  bool computeLoss = false;
  std::optional<std::string> device;  // where a fit computes; the CPU unless given
};
TOPKNOT_FIELDS(BprOptions, factors, iterations, learningRate, regularization, negativeSampling, candidates, biases,
               initStd, seed, hogwild, computeLoss, device)

struct BprFactors {
  Tensor userFactors, itemFactors;   // [users, factors], [items, factors]
  std::optional<Tensor> itemBiases;  // [items], with the option biases
  std::vector<double> loss;          // mean of -ln σ(s_i - s_j) over each epoch's samples, when asked
};
TOPKNOT_FIELDS(BprFactors, userFactors, itemFactors, itemBiases, loss)

/// Into how many strata of users and blocks of items an epoch is dealt: by the sizes alone. A block keeps at least 512
/// items to draw from and a task about 2,048 positives; with hogwild, which draws from all items, only the latter.
int64_t bprParts(int64_t users, int64_t items, int64_t positives, bool hogwild);

/// Throws for options that no fit has.
void checkOptions(const BprOptions& o);

namespace ops {

/// Starts from the given factors, of which rows of zeros, like all where none are given, start at random, keyed by
/// (seed, row). Users without entries end with zeros.
BprFactors bprFit(Job& job, Csr users, std::optional<Tensor> userFactors, std::optional<Tensor> itemFactors,
                  std::optional<Tensor> itemBiases, BprOptions options);

/// The factors [rows, factors] of other users with the items as they are: the epochs of a fit in which only the user's
/// row moves, from zero. `users`: the fit's interactions, which popularity sampling draws from.
Tensor bprFold(Job& job, Csr rows, Tensor itemFactors, std::optional<Tensor> itemBiases, Csr users, BprOptions options);

/// The rows [rows, factors] of the items numbered `at`, whose users are `rows`, with all else as it is; with their
/// biases behind, where the option asks for them. From zero, in each epoch: a step for each user of the item, against a
/// drawn negative, and as many as an epoch of a fit is expected to have in which the item is the negative, against
/// interactions drawn uniformly from `users` of users who have not chosen it. Being a hard negative counts as often as
/// being a uniform one. After Rendle, Schmidt-Thieme, "Online-updating regularized kernel matrix factorization models
/// for large-scale recommender systems", RecSys 2008.
Tensor bprItems(Job& job, Csr rows, Tensor at, Tensor userFactors, Tensor itemFactors, std::optional<Tensor> itemBiases,
                Csr users, BprOptions options);

/// What each interaction of one user adds to the score of item `target`, with the vector that bprFold finds: the sum of
/// its steps, η g (y_i - y_j), each shrunk by 1 - η λ in every later step. After Pruthi, Liu, Sundararajan, Kale,
/// "Estimating training data influence by tracing gradient descent", NeurIPS 2020, but exact, since the items do not
/// move. The baseline is the item's bias.
Explained bprExplain(Job& job, Csr row, Tensor itemFactors, std::optional<Tensor> itemBiases, Csr users, int64_t target,
                     BprOptions options);

}  // namespace ops
}  // namespace topknot
