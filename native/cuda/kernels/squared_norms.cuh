// Squared lengths of rows, the CUDA side of cpu/kernels/squared_norms.cpp: eight lanes for each row, the same bits.
#pragma once
#include "cuda/kernels/pair_score.cuh"

namespace topknot::cuda {

template <RowFormat format>
__global__ void __launch_bounds__(pairThreads) squaredNormsOf(SquaredNormsArgs a) {
  const int64_t row = pairGroup();
  const bool inside = row < a.m.rows;
  const void* x = floatRow<format>(a.m.data, inside ? row : 0, a.m.cols);
  const double sum = pairDot<format, format>(x, x, inside ? a.m.cols : 0);
  if (inside && pairLane() == 0) a.out[row] = static_cast<float>(sum);
}

/// The `squaredNorms` slot.
inline Status squaredNorms(const Exec& exec, const SquaredNormsArgs& a) {
  Queue queue(exec);
  if (a.m.rows == 0) return queue.status();
  withFloats(a.m.type, [&](auto format) {
    queue.launch("squaredNorms", squaredNormsOf<decltype(format)::value>, pairGrid(a.m.rows), pairThreads, a);
  });
  return queue.status();
}

}  // namespace topknot::cuda
