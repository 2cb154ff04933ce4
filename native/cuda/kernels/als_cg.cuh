// Half-sweeps of alternating least squares by conjugate gradients, the CUDA side of cpu/kernels/als_cg.cpp: a block
// solves a row, and never forms its system.
#pragma once
#include "cuda/kernels/als_rows.cuh"
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

inline constexpr int alsThreads = 256;

/// Sum over the block, the same for every thread; `parts` is shared memory of a number for each warp. Begins and ends
/// with a barrier.
SIMT_DEVICE float blockSum(float x, float* parts) {
  x = warpSum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += parts[w];
  __syncthreads();
  return sum;
}

/// out[i] = Σ_j gram[i][j] v[j] + λ v[i] + Σ_e w_e (y_e·v) y_e, or for a residual b - that, b = Σ_e (w_e + bonus) y_e.
/// `parts`: f floats for each warp. By the whole block; ends with a barrier.
SIMT_DEVICE void alsProduct(const AlsArgs& a, int64_t row, bool residual, const float* v, float* out, float* parts) {
  const int f = static_cast<int>(a.fixed.cols), thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32, lane = thread % 32, warps = alsThreads / 32;
  float* part = parts + warp * f;
  for (int i = lane; i < f; i += 32) part[i] = 0;
  __syncwarp(allLanes);
  for (int64_t e = a.rows.indptr[row] + warp; e < a.rows.indptr[row + 1]; e += warps) {
    const float* y = a.fixed.data + a.rows.indices[e] * a.fixed.cols;
    float dot = 0;
    for (int i = lane; i < f; i += 32) dot = fmaf(y[i], v[i], dot);
    dot = warpSum(dot);
    const float w = a.rows.values[e], factor = residual ? w + a.bonus - w * dot : w * dot;
    for (int i = lane; i < f; i += 32) part[i] = fmaf(factor, y[i], part[i]);
  }
  __syncthreads();
  for (int i = thread; i < f; i += alsThreads) {
    float sum = a.reg[row] * v[i], entries = 0;
    for (int j = 0; j < f; ++j) sum = fmaf(a.gram[j * f + i], v[j], sum);  // symmetric: neighbours read neighbours
    for (int w = 0; w < warps; ++w) entries += parts[w * f + i];
    out[i] = residual ? entries - sum : sum + entries;
  }
  __syncthreads();
}

inline int64_t alsCgShared(int64_t f) { return 4 * f * (4 + alsThreads / 32); }

__global__ void __launch_bounds__(alsThreads, 2) alsCgRows(AlsArgs a, unsigned long long* failed) {
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(float, sums, (alsThreads / 32));
  const int f = static_cast<int>(a.fixed.cols), thread = static_cast<int>(threadIdx.x);
  float* x = reinterpret_cast<float*>(memory);
  float *r = x + f, *p = r + f, *ap = p + f, *parts = ap + f;
  const auto dot = [&](const float* u, const float* v) {
    float sum = 0;
    for (int i = thread; i < f; i += alsThreads) sum = fmaf(u[i], v[i], sum);
    return blockSum(sum, sums);
  };
  for (int64_t row = blockIdx.x; row < a.rows.rows; row += gridDim.x) {
    const bool empty = a.rows.indptr[row] == a.rows.indptr[row + 1];
    for (int i = thread; i < f; i += alsThreads) {
      if (empty) a.out[row * f + i] = 0;
      x[i] = a.out[row * f + i];
    }
    if (empty) continue;
    __syncthreads();
    alsProduct(a, row, true, x, r, parts);
    for (int i = thread; i < f; i += alsThreads) p[i] = r[i];
    float rr = dot(r, r);
    const float start = rr;
    for (int step = 0; step < a.steps && rr > 1e-30f && rr > 1e-14f * start; ++step) {
      alsProduct(a, row, false, p, ap, parts);
      const float curvature = dot(p, ap);
      if (!(curvature > 0 && curvature <= 3.0e38f)) {
        if (thread == 0) reportRow(failed, row);
        break;
      }
      const float alpha = rr / curvature;
      for (int i = thread; i < f; i += alsThreads) {
        x[i] = fmaf(alpha, p[i], x[i]);
        r[i] = fmaf(-alpha, ap[i], r[i]);
      }
      const float next = dot(r, r), beta = next / rr;
      rr = next;
      for (int i = thread; i < f; i += alsThreads) p[i] = fmaf(beta, p[i], r[i]);
      __syncthreads();
    }
    for (int i = thread; i < f; i += alsThreads) a.out[row * f + i] = x[i];
    __syncthreads();
  }
}

/// The `alsCg` slot.
inline Status alsCg(const Exec& exec, const AlsArgs& a) {
  Queue queue(exec);
  const int64_t f = a.fixed.cols;
  if (a.rows.rows == 0 || f == 0) return queue.status();
  if (alsCgShared(f) > maxDynamicShared) {
    return failure(ErrorCode::range, "factors: expected at most %lld on a GPU with solver 'cg' but received %lld",
                   static_cast<long long>(maxDynamicShared / alsCgShared(1)), static_cast<long long>(f));
  }
  const int64_t most = int64_t{16} * queue.multiprocessors();
  auto* failed = queue.zero<unsigned long long>();
  queue.launch("alsCgRows", alsCgRows, {a.rows.rows < most ? a.rows.rows : most, 1, alsCgShared(f)}, alsThreads, a,
               failed);
  checkSolved(queue, failed);
  return queue.status();
}

}  // namespace topknot::cuda
