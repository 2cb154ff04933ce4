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

/// An entry of a batch of users, listed by item.
struct SvdppEntry {
  int32_t item, user;  // the user's number within the batch
  int64_t entry;       // its number among the batch's entries, user by user
};

/// One batch of SVD++: r̂_ui = μ + b_u + b_i + q_i·z_u with z_u = p_u + n_u^-½ Σ_{j rated by u} y_j. Koren,
/// "Factorization meets the neighborhood", KDD 2008. Each user, with the items as they are, visits their ratings in
/// order: the error e with z_u as it is now, then p_u += rate (e q_i - λ p_u) and b_u alike. After all users each item
/// visits its entries by user: q_i += rate (e z_u - λ q_i), b_i alike, and y_i += rate (n_u^-½ Σ e q - λ y_i), the sum
/// over the user's ratings.
struct SvdppArgs {
  CsrView ratings;       // by user, less the mean
  const int32_t* users;  // of the batch
  int64_t count;
  const int64_t* starts;      // [count]: the number of each user's first entry among those of the batch
  const SvdppEntry* entries;  // by item, then user
  const int64_t* runs;        // [itemCount + 1]: where each item's entries start
  int64_t itemCount;
  float *p, *q, *y;  // [users, stride] rows [p_u, b_u, 1, 0...]; [items, stride] [q_i, 1, b_i, 0...] and [y_i, 0...]
  int64_t factors, stride;  // stride is a multiple of 16, from factors + 2 on
  float learningRate, regularization;
  float *z, *sums;  // working memory, [count, stride] each
  float* errors;    // [entries of the batch]
  double* squares;  // [count]: Σ e² of each user
};

/// out[e] = (add ? out[e] : 0) + x_u·y_i for each entry e = (u, i) of `rows`.
struct CsrScoresArgs {
  CsrView rows;     // values are not read
  MatrixView x, y;  // [rows.rows, f], [rows.cols, f]
  bool add;
  float* out;  // [nnz]
};

}  // namespace topknot
