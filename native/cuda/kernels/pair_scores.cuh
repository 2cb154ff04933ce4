// Scores of given (user, item) pairs, the CUDA side of cpu/kernels/pair_scores.cpp: eight lanes for each, the same
// bits.
#pragma once
#include "cuda/kernels/pair_score.cuh"

namespace topknot::cuda {

__global__ void __launch_bounds__(pairThreads) pairScoresOf(PairScoresArgs a) {
  const int64_t pair = pairGroup();
  const bool inside = pair < a.count;
  const int64_t user = inside ? a.userIds[pair] : 0, item = inside ? a.itemIds[pair] : 0;
  const double dot = pairDot<RowFormat::float32, RowFormat::float32>(
      a.users.data + user * a.users.cols, a.items.data + item * a.items.cols, inside ? a.items.cols : 0);
  if (inside && pairLane() == 0) a.out[pair] = static_cast<float>(dot);
}

/// The `pairScores` slot.
inline Status pairScores(const Exec& exec, const PairScoresArgs& a) {
  Queue queue(exec);
  if (a.count == 0) return queue.status();
  queue.launch("pairScores", pairScoresOf, pairGrid(a.count), pairThreads, a);
  return queue.status();
}

}  // namespace topknot::cuda
