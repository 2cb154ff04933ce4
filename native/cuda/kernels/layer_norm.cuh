// Layer normalisation of rows, forward and backward, the CUDA side of cpu/kernels/layer_norm.cpp. A team takes a row.
// The gradients of weight and bias are sums over the rows: threads take pieces of the columns, whose sums are reduced.
#pragma once
#include <cmath>

#include "cuda/kernels/reduce.cuh"

namespace topknot::cuda {

struct Moments {
  float mean, inverse;  // inverse: 1 / sqrt(variance + eps)
};

template <int size>
SIMT_DEVICE Moments momentsOf(const float* x, int64_t cols, float eps) {
  float sum = 0, squares = 0;
  for (int64_t c = teamLane<size>(); c < cols; c += size) sum += x[c];
  const float mean = teamMerge<size, Sum>(sum) / static_cast<float>(cols);
  for (int64_t c = teamLane<size>(); c < cols; c += size) squares = fmaf(x[c] - mean, x[c] - mean, squares);
  return {mean, 1 / sqrtf(teamMerge<size, Sum>(squares) / static_cast<float>(cols) + eps)};
}

template <int size>
__global__ void __launch_bounds__(teamThreads) layerNormRows(LayerNormArgs a) {
  const int64_t row = teamRow<size>();
  if (row >= a.rows) return;
  const float* x = a.x + row * a.cols;
  const Moments m = momentsOf<size>(x, a.cols, a.eps);
  for (int64_t c = teamLane<size>(); c < a.cols; c += size) {
    const float n = (x[c] - m.mean) * m.inverse * (a.weight ? a.weight[c] : 1.0f);
    a.out[row * a.cols + c] = n + (a.bias ? a.bias[c] : 0.0f);
  }
}

/// The gradient of x; `moments` [rows] are kept for layerNormColumns.
template <int size>
__global__ void __launch_bounds__(teamThreads) layerNormGradientRows(LayerNormGradientArgs a, Moments* moments) {
  const int64_t row = teamRow<size>();
  if (row >= a.rows) return;
  const float *x = a.x + row * a.cols, *gradient = a.gradient + row * a.cols;
  const Moments m = momentsOf<size>(x, a.cols, a.eps);
  float sum = 0, products = 0;
  for (int64_t c = teamLane<size>(); c < a.cols; c += size) {
    const float h = gradient[c] * (a.weight ? a.weight[c] : 1.0f);
    sum += h;
    products = fmaf(h, (x[c] - m.mean) * m.inverse, products);
  }
  const float first = teamMerge<size, Sum>(sum) / static_cast<float>(a.cols);
  const float second = teamMerge<size, Sum>(products) / static_cast<float>(a.cols);
  for (int64_t c = teamLane<size>(); c < a.cols; c += size) {
    const float h = gradient[c] * (a.weight ? a.weight[c] : 1.0f), n = (x[c] - m.mean) * m.inverse;
    a.out[row * a.cols + c] = m.inverse * fmaf(-n, second, h - first);
  }
  if (teamLane<size>() == 0) moments[row] = m;
}

/// Thread t: column t % cols of the rows of piece t / cols, whose parts of the two gradients go to `parts` [2, pieces,
/// cols].
__global__ void __launch_bounds__(elementThreads)
    layerNormColumns(LayerNormGradientArgs a, const Moments* moments, int64_t pieces, float* parts) {
  const int64_t task = threadOfGrid();
  if (task >= pieces * a.cols) return;
  const int64_t begin = task / a.cols * downPiece, end = begin + downPiece < a.rows ? begin + downPiece : a.rows;
  float weight = 0, bias = 0;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * a.cols + task % a.cols;
    const float gradient = a.gradient[at];
    weight = fmaf(gradient, (a.x[at] - moments[row].mean) * moments[row].inverse, weight);
    bias += gradient;
  }
  parts[task] = weight;
  parts[pieces * a.cols + task] = bias;
}

/// The `layerNorm` slot.
inline Status layerNorm(const Exec& exec, const LayerNormArgs& a) {
  Queue queue(exec);
  if (a.rows == 0 || a.cols == 0) return queue.status();
  withTeams(a.cols, [&](auto team) {
    constexpr int size = decltype(team)::value;
    queue.launch("layerNorm", layerNormRows<size>, teamGrid<size>(a.rows), teamThreads, a);
  });
  return queue.status();
}

/// The `layerNormGradient` slot.
inline Status layerNormGradient(const Exec& exec, const LayerNormGradientArgs& a) {
  Queue queue(exec);
  if (a.cols == 0) return queue.status();
  Moments* moments = queue.workspace<Moments>(a.rows);
  if (a.rows > 0) {
    withTeams(a.cols, [&](auto team) {
      constexpr int size = decltype(team)::value;
      queue.launch("layerNormGradient", layerNormGradientRows<size>, teamGrid<size>(a.rows), teamThreads, a, moments);
    });
  }
  if (!a.weightGradient && !a.biasGradient) return queue.status();
  const int64_t pieces = (a.rows + downPiece - 1) / downPiece, size = pieces * a.cols;
  float* parts = queue.workspace<float>(2 * size);
  if (size > 0) {
    queue.launch("layerNormColumns", layerNormColumns, elementGrid(size), elementThreads, a, moments, pieces, parts);
  }
  if (a.weightGradient) queueReduce<Sum>(queue, {Reduction::sum, parts, 1, pieces, a.cols, a.weightGradient});
  if (a.biasGradient) queueReduce<Sum>(queue, {Reduction::sum, parts + size, 1, pieces, a.cols, a.biasGradient});
  return queue.status();
}

}  // namespace topknot::cuda
