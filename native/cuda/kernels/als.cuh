// Half-sweeps of alternating least squares, the CUDA side of cpu/kernels/als_cholesky.cpp and als_cg.cpp: a block
// solves a row. Cholesky forms the f x f system and factors it in shared memory (in global memory for large f);
// conjugate gradients never form it.
#pragma once
#include "backend/als_args.h"
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

inline constexpr int alsThreads = 256, alsEntries = 16;  // entries whose vectors are in shared memory at a time

/// One past the row whose system is not positive definite, the largest of them.
SIMT_DEVICE void reportRow(unsigned long long* failed, int64_t row) {
  atomicMax(failed, static_cast<unsigned long long>(row + 1));
}

/// What the host says about a failed row.
inline void checkSolved(Queue& queue, const unsigned long long* failed) {
  const unsigned long long row = queue.fetch(failed);
  if (row == 0) return;
  queue.fail(failure(ErrorCode::value,
                     "ALS: the system of row %llu is not positive definite in float32: use a larger regularization, or "
                     "weights that are neither negative nor huge",
                     row - 1));
}

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

/// Floats of the matrix, of a tile of vectors, of the right-hand side and of the tile's weights and targets.
inline int64_t alsShared(int64_t f, bool matrix) {
  return 4 * ((matrix ? f * (f + 1) : 0) + alsEntries * f + f + 2 * alsEntries);
}

/// Block b solves the rows b, b + gridDim.x, ...; `matrices` is global memory for f (f + 1) floats a block, or null.
__global__ void __launch_bounds__(alsThreads) alsCholeskyRows(AlsArgs a, float* matrices, unsigned long long* failed) {
  SIMT_DYNAMIC_SHARED(memory);
  const int f = static_cast<int>(a.fixed.cols), thread = static_cast<int>(threadIdx.x), stride = f + 1;
  float* shared = reinterpret_cast<float*>(memory);
  float* matrix = matrices ? matrices + int64_t{blockIdx.x} * f * stride : shared;
  float* vectors = matrices ? shared : shared + f * stride;
  float* x = vectors + alsEntries * f;
  float* weights = x + f;
  float* targets = weights + alsEntries;
  for (int64_t row = blockIdx.x; row < a.rows.rows; row += gridDim.x) {
    const int64_t begin = a.rows.indptr[row], end = a.rows.indptr[row + 1];
    if (begin == end) {
      for (int i = thread; i < f; i += alsThreads) a.out[row * f + i] = 0;
      continue;
    }
    for (int i = thread; i < f * f; i += alsThreads) {
      const int r = i / f, c = i % f;
      matrix[r * stride + c] = (a.gram ? a.gram[i] : 0.0f) + (r == c ? a.reg[row] : 0.0f);
    }
    for (int i = thread; i < f; i += alsThreads) x[i] = a.offset ? a.offset[row * f + i] : 0.0f;
    for (int64_t first = begin; first < end; first += alsEntries) {
      const int count = static_cast<int>(end - first < alsEntries ? end - first : alsEntries);
      __syncthreads();
      for (int i = thread; i < count * f; i += alsThreads) {
        vectors[i] = a.fixed.data[a.rows.indices[first + i / f] * a.fixed.cols + i % f];
      }
      if (thread < count) {
        weights[thread] = a.rows.values[first + thread];
        targets[thread] = a.targets ? a.targets[first + thread] : weights[thread] + a.bonus;
      }
      __syncthreads();
      for (int i = thread; i < f * f; i += alsThreads) {
        const int r = i / f, c = i % f;
        if (c > r) continue;  // the lower triangle
        float sum = matrix[r * stride + c];
        for (int e = 0; e < count; ++e) sum = fmaf(weights[e] * vectors[e * f + r], vectors[e * f + c], sum);
        matrix[r * stride + c] = sum;
      }
      for (int i = thread; i < f; i += alsThreads) {
        for (int e = 0; e < count; ++e) x[i] = fmaf(targets[e], vectors[e * f + i], x[i]);
      }
    }
    __syncthreads();
    bool positive = true;
    for (int k = 0; k < f; ++k) {  // right-looking, with the right-hand side as one more row
      const float pivot = matrix[k * stride + k];
      positive = positive && pivot > 0 && pivot < 3.0e38f;
      const float inverse = 1.0f / sqrtf(pivot);
      __syncthreads();
      for (int r = k + thread; r < f; r += alsThreads) matrix[r * stride + k] *= inverse;
      if (thread == 0) x[k] *= inverse;
      __syncthreads();
      const int left = f - k - 1;
      for (int i = thread; i < left * left; i += alsThreads) {
        const int r = k + 1 + i / left, c = k + 1 + i % left;
        if (c <= r)
          matrix[r * stride + c] = fmaf(-matrix[r * stride + k], matrix[c * stride + k], matrix[r * stride + c]);
      }
      for (int r = k + 1 + thread; r < f; r += alsThreads) x[r] = fmaf(-matrix[r * stride + k], x[k], x[r]);
      __syncthreads();
    }
    for (int k = f - 1; k >= 0; --k) {
      if (thread == 0) x[k] /= matrix[k * stride + k];
      __syncthreads();
      for (int r = thread; r < k; r += alsThreads) x[r] = fmaf(-matrix[k * stride + r], x[k], x[r]);
      __syncthreads();
    }
    if (thread == 0 && !positive) reportRow(failed, row);
    for (int i = thread; i < f; i += alsThreads) a.out[row * f + i] = x[i];
  }
}

/// The `alsCholesky` slot.
inline Status alsCholesky(const Exec& exec, const AlsArgs& a) {
  Queue queue(exec);
  const int64_t f = a.fixed.cols;
  if (a.rows.rows == 0 || f == 0) return queue.status();
  const bool inShared = alsShared(f, true) <= maxDynamicShared;
  if (alsShared(f, false) > maxDynamicShared) {
    return failure(ErrorCode::range, "factors: expected at most %lld on a GPU with solver 'cholesky' but received %lld",
                   static_cast<long long>((maxDynamicShared / 4 - 2 * alsEntries) / (alsEntries + 1)),
                   static_cast<long long>(f));
  }
  const int64_t most = int64_t{inShared ? 16 : 2} * queue.multiprocessors();
  const Grid grid{a.rows.rows < most ? a.rows.rows : most, 1, alsShared(f, inShared)};
  float* matrices = inShared ? nullptr : queue.workspace<float>(grid.x * f * (f + 1));
  auto* failed = queue.zero<unsigned long long>();
  queue.launch("alsCholeskyRows", alsCholeskyRows, grid, alsThreads, a, matrices, failed);
  checkSolved(queue, failed);
  return queue.status();
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
