// Half-sweeps of alternating least squares by conjugate gradients, the CUDA side of cpu/kernels/als_cg.cpp, which never
// form the system of a row. A warp has a row, and the eight rows of a block are multiplied by the Gram matrix together,
// so that each of its elements is read once for four of them. A row with many entries has a block of its own.
#pragma once
#include "cuda/kernels/als_rows.cuh"
#include "cuda/kernels/embedding_rows.cuh"
#include "cuda/kernels/linalg_team.cuh"

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

/// Block b has the rows list[b], list[b + gridDim.x], ...; all rows where there is no list. Rows without entries become
/// zero.
__global__ void __launch_bounds__(alsThreads, 2)
    alsCgRows(AlsArgs a, const int32_t* list, int64_t count, unsigned long long* failed) {
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
  for (int64_t number = blockIdx.x; number < count; number += gridDim.x) {
    const int64_t row = list ? list[number] : number;
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

inline constexpr int cgRows = alsThreads / 32;  // of a block

/// What the eight rows are to be multiplied with, side by side for each coordinate; four vectors of each.
inline int64_t alsCgGroupShared(int64_t f) { return 4 * f * (cgRows + 4 * cgRows); }

/// Rows of at most `heavy` entries; rows without any become zero.
__global__ void __launch_bounds__(alsThreads, 2) alsCgGroups(AlsArgs a, int64_t heavy, unsigned long long* failed) {
  SIMT_DYNAMIC_SHARED(memory);
  const int f = static_cast<int>(a.fixed.cols), thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32, lane = thread % 32;
  const int64_t row = int64_t{blockIdx.x} * cgRows + warp;
  const int64_t begin = row < a.rows.rows ? a.rows.indptr[row] : 0,
                end = row < a.rows.rows ? a.rows.indptr[row + 1] : 0;
  const bool mine = begin < end && end - begin <= heavy;
  float* together = reinterpret_cast<float*>(memory);  // [f][cgRows]
  float* products = together + f * cgRows;             // [cgRows][f]
  float *ap = products + warp * f, *x = products + (cgRows + 3 * warp) * f, *r = x + f, *p = r + f;
  // Elements i of this warp's vectors belong to lane i % 32.
  const auto dot = [&](const float* u, const float* v) {
    float sum = 0;
    for (int i = lane; i < f; i += 32) sum = fmaf(u[i], v[i], sum);
    return warpSum(sum);
  };
  /// ap = A v, or b - A v for a residual: alsProduct for each warp's row. By the whole block.
  const auto multiply = [&](const float* v, bool residual) {
    for (int i = lane; i < f; i += 32) together[i * cgRows + warp] = v[i];
    __syncthreads();
    for (int item = thread; item < cgRows / panel * f; item += alsThreads) {
      const int i = item % f, first = item / f * panel;
      float sum[panel] = {};
      for (int j = 0; j < f; ++j) {
        float y[panel];
        loadPanel(together + j * cgRows + first, y);
        const float g = a.gram[j * f + i];  // symmetric: neighbours read neighbours
        SIMT_UNROLL
        for (int k = 0; k < panel; ++k) sum[k] = fmaf(g, y[k], sum[k]);
      }
      SIMT_UNROLL
      for (int k = 0; k < panel; ++k) products[(first + k) * f + i] = sum[k];
    }
    __syncthreads();
    if (!mine) return;
    for (int i = lane; i < f; i += 32) {
      const float sum = fmaf(a.reg[row], v[i], ap[i]);
      ap[i] = residual ? -sum : sum;
    }
    for (int64_t base = begin; base < end; base += 32) {
      const int count = static_cast<int>(end - base < 32 ? end - base : 32);
      const int32_t index = lane < count ? a.rows.indices[base + lane] : 0;
      const float weight = lane < count ? a.rows.values[base + lane] : 0;
      for (int j = 0; j < count; j += rowsInFlight) {
        const float* y[rowsInFlight];
        float factors[rowsInFlight] = {};
        SIMT_UNROLL
        for (int u = 0; u < rowsInFlight; ++u) {  // behind the last entry, the last entry again, without weight
          y[u] =
              a.fixed.data + static_cast<int64_t>(__shfl_sync(allLanes, index, j + u < count ? j + u : count - 1)) * f;
        }
        for (int i = lane; i < f; i += 32) {
          SIMT_UNROLL
          for (int u = 0; u < rowsInFlight; ++u) factors[u] = fmaf(y[u][i], v[i], factors[u]);
        }
        SIMT_UNROLL
        for (int u = 0; u < rowsInFlight; ++u) {
          const float w = __shfl_sync(allLanes, weight, (j + u) % 32), score = warpSum(factors[u]);
          factors[u] = j + u >= count ? 0.0f : residual ? w + a.bonus - w * score : w * score;
        }
        for (int i = lane; i < f; i += 32) {
          float sum = ap[i];
          SIMT_UNROLL
          for (int u = 0; u < rowsInFlight; ++u) sum = fmaf(factors[u], y[u][i], sum);
          ap[i] = sum;
        }
      }
    }
  };
  for (int i = lane; i < f; i += 32) {
    x[i] = mine ? a.out[row * f + i] : 0.0f;
    p[i] = 0;
  }
  multiply(x, true);
  float rr = 0;
  if (mine) {
    for (int i = lane; i < f; i += 32) r[i] = p[i] = ap[i];
    rr = dot(r, r);
  }
  const float start = rr;
  bool positive = true;
  for (int step = 0; step < a.steps; ++step) {
    const bool going = positive && rr > 1e-30f && rr > 1e-14f * start;
    if (!__syncthreads_or(going)) break;
    multiply(p, false);
    if (!going) continue;
    const float curvature = dot(p, ap);
    positive = curvature > 0 && curvature <= 3.0e38f;
    if (!positive) {
      if (lane == 0) reportRow(failed, row);
      continue;
    }
    const float alpha = rr / curvature;
    for (int i = lane; i < f; i += 32) {
      x[i] = fmaf(alpha, p[i], x[i]);
      r[i] = fmaf(-alpha, ap[i], r[i]);
    }
    const float next = dot(r, r), beta = next / rr;
    rr = next;
    for (int i = lane; i < f; i += 32) p[i] = fmaf(beta, p[i], r[i]);
  }
  if (row >= a.rows.rows || (!mine && begin < end)) return;
  for (int i = lane; i < f; i += 32) a.out[row * f + i] = x[i];
}

/// The `alsCg` slot.
inline Status alsCg(const Exec& exec, const AlsArgs& a, const AlsPlan& plan = {}) {
  Queue queue(exec);
  const int64_t f = a.fixed.cols;
  if (a.rows.rows == 0 || f == 0) return queue.status();
  constexpr int64_t room = maxDynamicShared - 1024;  // the kernel declares a little itself
  if (alsCgShared(f) > room) {
    return failure(ErrorCode::range, "factors: expected at most %lld on a GPU with solver 'cg' but received %lld",
                   static_cast<long long>(room / alsCgShared(1)), static_cast<long long>(f));
  }
  auto* failed = queue.zero<unsigned long long>();
  HeavyRows alone{nullptr, a.rows.rows};  // each by a block
  if (alsCgGroupShared(f) <= maxDynamicShared) {
    alone = findHeavyRows(queue, a.rows, plan.heavyCg);
    const Grid grid{(a.rows.rows + cgRows - 1) / cgRows, 1, alsCgGroupShared(f)};
    queue.launch("alsCgGroups", alsCgGroups, grid, alsThreads, a, plan.heavyCg, failed);
  }
  if (alone.count > 0) {
    const int64_t most = int64_t{16} * queue.multiprocessors();
    queue.launch("alsCgRows", alsCgRows, {alone.count < most ? alone.count : most, 1, alsCgShared(f)}, alsThreads, a,
                 alone.list, alone.count, failed);
  }
  checkSolved(queue, failed);
  return queue.status();
}

}  // namespace topknot::cuda
