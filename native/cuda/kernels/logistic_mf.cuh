// Half-sweeps of logistic matrix factorization, the CUDA side of cpu/kernels/logistic_mf.cpp: a block takes a row. Its
// first warp draws the negatives, the CPU's own, a batch at a time; all warps share the terms, each with a gradient of
// its own, and these are added in the order of the warps.
#pragma once
#include "backend/logistic_mf_args.h"
#include "cuda/kernels/factor_rows.cuh"
#include "cuda/kernels/negatives.cuh"

namespace topknot::cuda {

inline constexpr int logisticWarps = 8, logisticDraws = 512;  // at most; that a batch has

/// What a block keeps in shared memory.
struct LogisticSums {
  float* gradients;  // [warps, stride]
  float* ofBiases;   // [warps]
  int32_t* drawn;    // [logisticDraws]
};

inline int64_t logisticShared(int64_t stride, int64_t warps) { return 4 * (warps * (stride + 1) + logisticDraws); }

/// Adds the gradients of some terms, four at a time, to that of this warp. values: r of the row's entries; null: they
/// are negatives, -1 for none. Answers this warp's part of the bias's gradient.
template <int V>
SIMT_DEVICE float addTerms(const LogisticMfArgs& a, int64_t row, const int32_t* items, const float* values,
                           int64_t count, float* gradient) {
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
  const float* x = a.factors + row * a.stride;
  float ofBias = 0;
  for (int64_t first = warp * rowsInFlight; first < count; first += warps * rowsInFlight) {
    const float* y[rowsInFlight];
    float dots[rowsInFlight] = {}, slopes[rowsInFlight];
    SIMT_UNROLL
    for (int u = 0; u < rowsInFlight; ++u) {
      const int64_t item = first + u < count ? items[first + u] : -1;
      y[u] = item < 0 ? nullptr : a.otherFactors + item * a.stride;
    }
    forColumns<V>(a.stride, [&](int64_t c) {
      float xs[V];
      loadFactors(x, c, xs);
      SIMT_UNROLL
      for (int u = 0; u < rowsInFlight; ++u) {
        if (!y[u]) continue;
        float ys[V];
        loadFactors(y[u], c, ys);
        for (int k = 0; k < V; ++k) dots[u] = fmaf(xs[k], ys[k], dots[u]);
      }
    });
    SIMT_UNROLL
    for (int u = 0; u < rowsInFlight; ++u) {
      const float dot = warpSum(dots[u]);
      slopes[u] = 0;
      if (!y[u]) continue;
      const float score = dot + a.biases[row] + a.otherBiases[items[first + u]];
      const float weight = values ? a.alpha * values[first + u] : 0.0f;
      slopes[u] = weight - (1.0f + weight) / (1.0f + expf(-score));
      ofBias += slopes[u];
    }
    forColumns<V>(a.stride, [&](int64_t c) {
      float g[V];
      loadFactors(gradient, c, g);
      SIMT_UNROLL
      for (int u = 0; u < rowsInFlight; ++u) {
        if (!y[u]) continue;
        float ys[V];
        loadFactors(y[u], c, ys);
        for (int k = 0; k < V; ++k) g[k] = fmaf(slopes[u], ys[k], g[k]);
      }
      storeColumns(gradient, c, g);
    });
  }
  return ofBias;
}

/// One Adagrad step of a number whose gradient is g.
SIMT_DEVICE void climb(const LogisticMfArgs& a, float g, float& x, float& squares) {
  g = fmaf(-a.regularization, x, g);
  squares = fmaf(g, g, squares);
  x += a.rate * g / (sqrtf(squares) + 1e-8f);
}

/// Block u: row u.
template <int V>
__global__ void __launch_bounds__(32 * logisticWarps) logisticMfRows(LogisticMfArgs a) {
  SIMT_DYNAMIC_SHARED(memory);
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
  LogisticSums sums;
  sums.gradients = reinterpret_cast<float*>(memory);
  sums.ofBiases = sums.gradients + warps * a.stride;
  sums.drawn = reinterpret_cast<int32_t*>(sums.ofBiases + warps);
  const CsrView& m = a.own.rows;
  const int64_t row = blockIdx.x, begin = m.indptr[row], count = m.indptr[row + 1] - begin;
  float* gradient = sums.gradients + warp * a.stride;
  for (int64_t c = threadIdx.x % 32; c < a.stride; c += 32) gradient[c] = 0;
  __syncwarp(allLanes);
  float ofBias = addTerms<V>(a, row, m.indices + begin, m.values + begin, count, gradient);
  NegativeDraws draws{nullptr, static_cast<uint32_t>(m.cols), a.seed, a.stream + static_cast<uint64_t>(row), 0};
  const int64_t slots = a.negatives * (count > 0 ? count : 1);
  for (int64_t first = 0; first < slots; first += logisticDraws) {
    const int64_t batch = slots - first < logisticDraws ? slots - first : logisticDraws;
    if (warp == 0) {
      drawNegatives<true>(
          a.own, draws, batch, [&](int64_t) { return row; }, sums.drawn);
    }
    __syncthreads();
    ofBias += addTerms<V>(a, row, sums.drawn, nullptr, batch, gradient);
    __syncthreads();
  }
  if (threadIdx.x % 32 == 0) sums.ofBiases[warp] = ofBias;
  __syncthreads();
  for (int64_t c = threadIdx.x; c < a.stride; c += blockDim.x) {
    float g = 0;
    for (int w = 0; w < warps; ++w) g += sums.gradients[w * a.stride + c];
    climb(a, g, a.factors[row * a.stride + c], a.squaredFactors[row * a.stride + c]);
  }
  if (threadIdx.x == 0) {
    float g = 0;
    for (int w = 0; w < warps; ++w) g += sums.ofBiases[w];
    climb(a, g, a.biases[row], a.squaredBiases[row]);
  }
}

/// The `logisticMf` slot.
inline Status logisticMf(const Exec& exec, const LogisticMfArgs& a) {
  Queue queue(exec);
  if (a.own.rows.rows == 0) return queue.status();
  int warps = logisticWarps;
  while (warps > 1 && logisticShared(a.stride, warps) > maxDynamicShared) warps /= 2;
  const Grid grid{a.own.rows.rows, 1, logisticShared(a.stride, warps)};
  withStrideColumns(a.stride, [&](auto columns) {
    queue.launch("logisticMfRows", logisticMfRows<decltype(columns)::value>, grid, 32 * warps, a);
  });
  return queue.status();
}

}  // namespace topknot::cuda
