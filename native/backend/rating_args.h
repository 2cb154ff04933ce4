// What the kernels of rating prediction are given.
#pragma once
#include <cstdint>

#include "backend/views.h"

namespace topknot {

struct RatingEntry {
  int32_t user, item;
  float rating;
};

/// One epoch of stochastic gradient descent on Σ (r_ui - x_u·y_i)² + regularization (|x_u|² + |y_i|²) over the ratings,
/// with x_u = [p_u, b_u, 1, 0...] and y_i = [q_i, 1, b_i, 0...], whose ones stay as they are: Koren, Bell, Volinsky,
/// "Matrix factorization techniques for recommender systems", Computer 42(8), 2009. `rating` is r_ui less the mean.
///
/// Users are split into `strata` groups and items likewise; block (s, b) holds the ratings of users of group s and
/// items of group b. Round t runs the blocks (s, (s + rounds[t]) % strata), which share no row, side by side: Gemulla,
/// Nijkamp, Haas, Sismanis, "Large-scale matrix factorization with distributed stochastic gradient descent", KDD 2011.
struct RatingSgdArgs {
  const RatingEntry* entries;  // in the order in which they are visited, block by block
  const int64_t* borders;  // [strata² + 1]: block (s, b) is entries [borders[k], borders[k + 1]), k = s * strata + b
  const int32_t* rounds;   // [strata]
  int64_t strata;
  float *users, *items;     // [users, stride], [items, stride]
  int64_t factors, stride;  // stride is a multiple of 16, from factors + 2 on
  float learningRate, regularization;
  double* squaredErrors;  // [strata²]: of each block, of the predictions before their updates
};

/// out[e] = (add ? out[e] : 0) + x_u·y_i for each entry e = (u, i) of `rows`.
struct CsrScoresArgs {
  CsrView rows;     // values are not read
  MatrixView x, y;  // [rows.rows, f], [rows.cols, f]
  bool add;
  float* out;  // [nnz]
};

}  // namespace topknot
