// Optimizer steps on the rows that were looked up, the CUDA side of cpu/kernels/embedding_update.cpp: a warp for each
// row sums its gradient and applies it at once; no gradient tensor. 16-bit rows are updated in float32 and rounded
// stochastically with the CPU's random bits.
#pragma once
#include <cmath>

#include "cpu/kernels/embedding_rounding.h"
#include "cuda/kernels/embedding_gradient.cuh"

namespace topknot::cuda {

/// What the optimizer subtracts from column c of the row, whose gradient there is g.
SIMT_DEVICE float stepOf(const EmbeddingUpdateArgs& a, int64_t row, float rate, float g, int64_t c) {
  if (a.optimizer != EmbeddingOptimizer::adam) return rate * g;
  float& mean = a.means[row * a.rows.gradient.cols + c];
  float& square = a.squares[row * a.rows.gradient.cols + c];
  const float m = fmaf(1.0f - a.beta1, g - mean, mean), v = fmaf(1.0f - a.beta2, g * g - square, square);
  mean = m;
  square = v;
  return rate / a.correction1 * m / (sqrtf(v / a.correction2) + a.epsilon);
}

template <RowFormat format, int V>
__global__ void __launch_bounds__(embeddingThreads, 2) updateRows(EmbeddingUpdateArgs a, const float* parts) {
  const int64_t g = warpOfGrid(), cols = a.rows.gradient.cols;
  if (g >= a.rows.groups.bags) return;
  const int64_t row = a.rows.rows[g], first = threadIdx.x % 32 * V;
  float gradient[V], rate = a.rate;
  rowGradient(a.rows, parts, g, first, gradient);
  if (a.optimizer == EmbeddingOptimizer::adagrad) {  // needs all columns; those of the first block are kept
    float squares = 0;
    for (int k = 0; k < V; ++k) squares = fmaf(gradient[k], gradient[k], squares);
    for (int64_t block = 32 * V; block < cols; block += 32 * V) {
      float more[V];
      rowGradient(a.rows, parts, g, block + first, more);
      for (int k = 0; k < V; ++k) squares = fmaf(more[k], more[k], squares);
    }
    const float sum = a.sums[row] + warpSum(squares) / static_cast<float>(cols);
    __syncwarp(allLanes);  // all lanes have read the sum
    if (first == 0) a.sums[row] = sum;
    rate /= sqrtf(sum) + a.epsilon;
  }
  const RowBits random(a.seed, static_cast<uint64_t>(a.keys ? a.keys[g] : row), a.step);
  for (int64_t block = 0; block < cols; block += 32 * V) {
    const int64_t c = block + first;
    if (block > 0) rowGradient(a.rows, parts, g, c, gradient);
    if (c >= cols) continue;
    float x[V];
    loadColumns<format>(static_cast<const char*>(a.table) + row * cols * (format == RowFormat::float32 ? 4 : 2), c, x);
    for (int k = 0; k < V; ++k) x[k] -= stepOf(a, row, rate, gradient[k], c + k);
    if constexpr (format == RowFormat::float32) {
      storeColumns(static_cast<float*>(a.table) + row * cols, c, x);
    } else {
      using Half = std::conditional_t<format == RowFormat::float16, Float16, BFloat16>;
      Half* out = static_cast<Half*>(a.table) + row * cols + c;
      uint32_t bits[8];
      random.fill(c / 8 * 8, bits);
      for (int k = 0; k < V; ++k) out[k] = roundStochastically(x[k], bits[(c + k) % 8], Half{});
    }
  }
}

/// The `embeddingUpdate` slot.
inline Status embeddingUpdate(const Exec& exec, const EmbeddingUpdateArgs& a) {
  Queue queue(exec);
  const RowGradientsView& view = a.rows;
  if (view.groups.bags == 0 || view.gradient.cols == 0) return queue.status();
  withLaneColumns(view.gradient.cols, [&](auto columns) {
    constexpr int v = decltype(columns)::value;
    const float* parts = sumSegments<v>(queue, view, view.entries);
    const Grid grid = warpGrid(view.groups.bags);
    switch (a.format) {
      case RowFormat::float16:
        return queue.launch("updateRows", updateRows<RowFormat::float16, v>, grid, embeddingThreads, a, parts);
      case RowFormat::bfloat16:
        return queue.launch("updateRows", updateRows<RowFormat::bfloat16, v>, grid, embeddingThreads, a, parts);
      default:
        return queue.launch("updateRows", updateRows<RowFormat::float32, v>, grid, embeddingThreads, a, parts);
    }
  });
  return queue.status();
}

}  // namespace topknot::cuda
