// Rows of factors as a warp works on them: 16-byte aligned and padded with zeros to a multiple of 16 floats; lane l has
// V neighbouring columns of each 32 V. A lane has the same columns of every row, so a warp reads what it has written
// without a barrier.
#pragma once
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

/// Calls f(c) for the first of each V columns of this lane.
template <int V, typename F>
SIMT_DEVICE void forColumns(int64_t stride, F&& f) {
  for (int64_t c = threadIdx.x % 32 * V; c < stride; c += 32 * V) f(c);
}

template <int V>
SIMT_DEVICE void loadFactors(const float* row, int64_t c, float (&x)[V]) {
  loadColumns<RowFormat::float32>(row, c, x);
}

/// x·y, the same for every lane.
template <int V>
SIMT_DEVICE float dotRows(const float* x, const float* y, int64_t stride) {
  float sum = 0;
  forColumns<V>(stride, [&](int64_t c) {
    float xs[V], ys[V];
    loadFactors(x, c, xs);
    loadFactors(y, c, ys);
    for (int k = 0; k < V; ++k) sum = fmaf(xs[k], ys[k], sum);
  });
  return warpSum(sum);
}

/// Calls f(std::integral_constant) with the V that suits rows of this stride.
template <typename F>
void withStrideColumns(int64_t stride, F&& f) {
  if (stride > 64) return f(std::integral_constant<int, 4>());
  if (stride > 32) return f(std::integral_constant<int, 2>());
  f(std::integral_constant<int, 1>());
}

}  // namespace topknot::cuda
