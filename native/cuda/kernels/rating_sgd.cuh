// Stochastic gradient descent over ratings, the CUDA side of cpu/kernels/rating_sgd.cpp: a launch for each round, a
// warp for each block of ratings, which it visits in their order.
#pragma once
#include "backend/rating_args.h"
#include "cuda/kernels/factor_rows.cuh"

namespace topknot::cuda {

/// One rating; answers its error before the step. By a whole warp.
template <int V>
SIMT_DEVICE float visitRating(const RatingSgdArgs& a, int64_t user, int64_t item, float rating) {
  float *x = a.users + user * a.stride, *y = a.items + item * a.stride;
  const float error = rating - dotRows<V>(x, y, a.stride);
  const float step = a.learningRate * error, keep = 1.0f - a.learningRate * a.regularization;
  forColumns<V>(a.stride, [&](int64_t c) {
    float xs[V], ys[V], moved[V];
    loadFactors(x, c, xs);
    loadFactors(y, c, ys);
    for (int k = 0; k < V; ++k) {
      moved[k] = c + k == a.factors + 1 ? 1.0f : fmaf(step, ys[k], keep * xs[k]);
      ys[k] = c + k == a.factors ? 1.0f : fmaf(step, xs[k], keep * ys[k]);
    }
    storeColumns(x, c, moved);
    storeColumns(y, c, ys);
  });
  return error;
}

/// Block s, of one warp: the ratings of user group s in this round.
template <int V>
__global__ void __launch_bounds__(32) ratingRound(RatingSgdArgs a, int64_t round) {
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t s = blockIdx.x, block = s * a.strata + (s + a.rounds[round]) % a.strata, end = a.borders[block + 1];
  double squares = 0;
  for (int64_t base = a.borders[block]; base < end; base += 32) {
    const int count = static_cast<int>(end - base < 32 ? end - base : 32);
    const RatingEntry mine = lane < count ? a.entries[base + lane] : RatingEntry{};
    for (int j = 0; j < count; ++j) {
      const int32_t user = __shfl_sync(allLanes, mine.user, j), item = __shfl_sync(allLanes, mine.item, j);
      const float error = visitRating<V>(a, user, item, __shfl_sync(allLanes, mine.rating, j));
      squares += static_cast<double>(error) * static_cast<double>(error);
    }
  }
  if (lane == 0) a.squaredErrors[block] = squares;
}

/// The `ratingSgd` slot.
inline Status ratingSgd(const Exec& exec, const RatingSgdArgs& a) {
  Queue queue(exec);
  withStrideColumns(a.stride, [&](auto columns) {
    for (int64_t round = 0; round < a.strata && !exec.cancelled(); ++round) {
      queue.launch("ratingRound", ratingRound<decltype(columns)::value>, {a.strata}, 32, a, round);
    }
  });
  return queue.status();
}

}  // namespace topknot::cuda
