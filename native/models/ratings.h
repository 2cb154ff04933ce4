// Rating prediction: a rating is the mean, a bias of the user, a bias of the item and an inner product,
//   r̂_ui = μ + b_u + b_i + p_u·q_i,
// which is one inner product of the rows [p_u, b_u, 1] and [q_i, 1, μ + b_i]. Models hold those rows, `factors` + 2
// long, so that scores, search and files need to know nothing of biases.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "core/csr.h"
#include "core/fields.h"
#include "core/job.h"
#include "core/tensor.h"
#include "models/explained.h"

namespace topknot {

struct RatingRows {
  Tensor users, items;       // [users, factors + 2], [items, factors + 2]
  double mean = 0;           // μ
  std::vector<double> loss;  // the objective after each iteration, when asked
};
TOPKNOT_FIELDS(RatingRows, users, items, mean, loss)

/// Which side's rows are meant.
enum class RatingSide : int32_t { users, items };
TOPKNOT_ENUM(RatingSide, "users", "items")

/// The mean of the values, summed in fixed blocks.
double meanRating(Job& job, const Csr& ratings);

/// Rows for training, [rows, stride] with zeros beyond factors + 2: from the rows of a model (a row of zeros there is
/// somebody new, who starts at zero), or random where there are ratings; the ones, and b_i in place of μ + b_i.
Tensor trainingRows(Job& job, const std::optional<Tensor>& start, const Csr& ratings, int64_t factors, int64_t stride,
                    RatingSide side, double mean, double initStd, int64_t seed);

/// The rows of a model from those of training. Throws ERR_VALUE, naming the way out, for numbers that are not finite.
Tensor modelRows(Job& job, const Tensor& training, int64_t factors, RatingSide side, double mean);

/// Σ (r_ui - r̂_ui)² over the entries of `ratings`; the rows are those of a model.
double squaredError(Job& job, const Csr& ratings, const Tensor& users, const Tensor& items);

/// Σ_u n_u (|p_u|² + b_u²) over the rows of a model, n_u the count of entries.
double ratingPenalty(const Csr& ratings, const Tensor& rows, RatingSide side, double mean);

/// The least squares problems of one side's rows, on the device that is to solve them: for each row the vector and the
/// bias that minimise Σ_i (r_i - r̂_i)² + n regularization (|p|² + b²) over its n entries.
class RatingSystems {
 public:
  /// `rows` are on the host and have been checked.
  RatingSystems(const Csr& rows, RatingSide side, double mean, double regularization, Device device);
  /// The model rows of this side from those of the other, on the same device.
  Tensor solve(Job& job, const Tensor& fixed) const;

 private:
  Csr rows_;
  RatingSide side_;
  Tensor reg_, ones_, mean_;  // [rows], as many as rows or entries, [1]
};

namespace ops {

/// RatingSystems solved once, where `fixed` is: fold-in.
Tensor ratingSolve(Job& job, Csr rows, Tensor fixed, RatingSide side, double mean, double regularization);

/// What each rating of one user adds to what they are predicted to give item `target`, with the vector and the bias
/// that ratingSolve finds. These are linear in the ratings less μ + b_i: with z_i = [q_i, 1] and A = Σ_i z_i z_iᵀ + n λ
/// I,
///   r̂_t = μ + b_t + Σ_i w_i (r_i - μ - b_i),  w_i = z_tᵀ A⁻¹ z_i.
/// With `implicit`, the y of SVD++, having rated an item counts beside the rating: each i adds n^-½ y_i·(q_t - Σ_k w_k
/// q_k) more. After Hu, Koren, Volinsky, ICDM 2008, section 5. The baseline is μ + b_t.
Explained ratingExplain(Job& job, Csr row, Tensor itemRows, std::optional<Tensor> implicit, int64_t target,
                        double regularization);

}  // namespace ops

}  // namespace topknot
