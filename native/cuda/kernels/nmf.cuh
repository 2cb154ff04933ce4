// Nonnegative matrix factorization, the CUDA side of cpu/kernels/nmf.cpp: the same coordinates in the same order.
//
// Frobenius over all cells: the right-hand sides are one sparse product; then a warp descends the coordinates of a row,
// its gradient across the lanes. Over the entries, and KL: a block (a warp, for most rows) keeps the predictions of the
// row's entries and sums over them for each coordinate; the other side lies factor by factor, because rising items then
// read rising addresses, and no f x f system is formed.
#pragma once
#include "backend/nmf_args.h"
#include "cuda/kernels/spmm.cuh"

namespace topknot::cuda {

inline constexpr int nmfTile = 32, nmfLongThreads = 512;
inline constexpr int64_t nmfLong = 1024;  // entries of a row from which on a block of nmfLongThreads takes it

/// out[c][r] = m[r][c]. Block (t, s): the t-th nmfTile rows, the s-th nmfTile columns; nmfTile threads by 8.
__global__ void __launch_bounds__(nmfTile * 8) nmfTranspose(MatrixView m, float* out) {
  SIMT_SHARED(float, tile, nmfTile*(nmfTile + 1));
  const int x = static_cast<int>(threadIdx.x) % nmfTile, y = static_cast<int>(threadIdx.x) / nmfTile;
  const int64_t row = int64_t{blockIdx.x} * nmfTile, column = int64_t{blockIdx.y} * nmfTile;
  for (int i = y; i < nmfTile; i += 8) {
    if (row + i < m.rows && column + x < m.cols) tile[i * (nmfTile + 1) + x] = m.data[(row + i) * m.cols + column + x];
  }
  __syncthreads();
  for (int i = y; i < nmfTile; i += 8) {
    if (row + x < m.rows && column + i < m.cols) out[(column + i) * m.rows + row + x] = tile[x * (nmfTile + 1) + i];
  }
}

/// Block u, of one warp: the row u, all cells counting; products = rows · fixed.
__global__ void __launch_bounds__(32) nmfFrobeniusRows(NmfArgs a, const float* products) {
  SIMT_DYNAMIC_SHARED(memory);  // lane l alone touches the places l, l + 32, ...
  const int64_t row = blockIdx.x, f = a.fixed.cols;
  const int lane = static_cast<int>(threadIdx.x);
  float *w = reinterpret_cast<float*>(memory), *g = w + f, *out = a.out + row * f;
  if (a.rows.indptr[row] == a.rows.indptr[row + 1]) {
    for (int64_t i = lane; i < f; i += 32) out[i] = 0;
    return;
  }
  for (int64_t i = lane; i < f; i += 32) {
    w[i] = out[i];
    g[i] = -products[row * f + i];
  }
  for (int64_t k = 0; k < f; ++k) {  // g = G w - b
    const float wk = __shfl_sync(allLanes, lane == k % 32 ? w[k] : 0.0f, static_cast<int>(k % 32));
    for (int64_t i = lane; i < f; i += 32) g[i] = fmaf(wk, a.gram[k * f + i], g[i]);
  }
  const float lambda = a.reg[row];
  for (int32_t pass = 0; pass < a.passes; ++pass) {
    for (int64_t k = 0; k < f; ++k) {
      float change = 0;
      if (lane == k % 32) {
        const float curvature = a.gram[k * f + k] + lambda;
        const float best = curvature > 0 ? fmaxf(0.0f, w[k] - fmaf(lambda, w[k], g[k]) / curvature) : 0.0f;
        change = best - w[k];
        w[k] = best;
      }
      change = __shfl_sync(allLanes, change, static_cast<int>(k % 32));
      if (change == 0) continue;
      for (int64_t i = lane; i < f; i += 32) g[i] = fmaf(change, a.gram[k * f + i], g[i]);
    }
  }
  for (int64_t i = lane; i < f; i += 32) out[i] = w[i];
}

/// The entries of one row, as a block of Threads goes through them: thread t has the entries t, t + Threads, ...
template <int Threads>
struct NmfRow {
  const int32_t* items;
  const float* x;
  const float* transposed;  // the other side, factor by factor
  float* predictions;       // w·h, for Frobenius less x
  int64_t entries, cols;
  float* parts;  // shared: [2 * Threads / 32]

  template <typename F>
  __device__ void forEach(int64_t k, F&& f) const {
    const float* h = transposed + k * cols;
    for (int64_t i = threadIdx.x; i < entries; i += Threads) f(i, h[items[i]]);
  }
  __device__ void add(int64_t k, float by) const {
    forEach(k, [&](int64_t i, float h) { predictions[i] = fmaf(by, h, predictions[i]); });
  }
  /// Both sums over the block, the same for every thread.
  __device__ void sum(float& first, float& second) const {
    first = warpSum(first);
    second = warpSum(second);
    if constexpr (Threads > 32) {
      const int warp = static_cast<int>(threadIdx.x) / 32;
      __syncthreads();
      if (threadIdx.x % 32 == 0) {
        parts[2 * warp] = first;
        parts[2 * warp + 1] = second;
      }
      __syncthreads();
      first = second = 0;
      for (int w = 0; w < Threads / 32; ++w) {
        first += parts[2 * w];
        second += parts[2 * w + 1];
      }
    }
  }
  /// What thread 0 wrote is there for all.
  __device__ void barrier() const {
    if constexpr (Threads > 32) __syncthreads();
    else __syncwarp(allLanes);
  }
};

/// Σ x h / y and Σ x (h / y)², y being the predictions less `less` h.
template <int Threads>
SIMT_DEVICE void klDerivatives(const NmfRow<Threads>& row, int64_t k, float less, float& first, float& second) {
  first = second = 0;
  row.forEach(k, [&](int64_t i, float h) {
    const float y = fmaxf(fmaf(-less, h, row.predictions[i]), 1e-20f), ratio = h / y, scaled = row.x[i] * ratio;
    first += scaled;
    second = fmaf(scaled, ratio, second);
  });
  row.sum(first, second);
}

/// The coordinate that minimises the objective with the others as they are; the predictions follow. See cpu/kernels.
template <int Threads>
SIMT_DEVICE float klMinimum(const NmfRow<Threads>& row, int64_t k, float sum, float lambda, float w) {
  bool toZero = false;  // a step leads to 0 or beyond: the sums are those at 0
  for (int step = 0; step < 12; step += toZero ? 0 : 1) {
    float first, second, next;
    klDerivatives(row, k, toZero ? w : 0.0f, first, second);
    if (toZero) {
      next = sum - first >= 0 ? 0.0f : 0.25f * w;
      toZero = false;
    } else {
      const float slope = fmaf(lambda, w, sum) - first;
      if (fabsf(slope) <= 1e-5f * fmaf(lambda, w, sum) || (w == 0 && slope >= 0)) break;
      const float curvature = second + lambda;
      next = curvature > 0 ? w - slope / curvature : 0.0f;
      toZero = !(next > 0);
      if (toZero) continue;
    }
    row.add(k, next - w);
    w = next;
    if (w == 0) break;
  }
  return w;
}

template <int Threads>
SIMT_DEVICE float frobeniusMinimum(const NmfRow<Threads>& row, int64_t k, float lambda, float w) {
  float slope = 0, curvature = 0;
  row.forEach(k, [&](int64_t i, float h) {
    slope = fmaf(row.predictions[i], h, slope);
    curvature = fmaf(h, h, curvature);
  });
  row.sum(slope, curvature);
  curvature += lambda;
  const float best = curvature > 0 ? fmaxf(0.0f, w - fmaf(lambda, w, slope) / curvature) : 0.0f;
  if (best != w) row.add(k, best - w);
  return best;
}

/// Block b takes the rows b, b + gridDim.x, ... that have `least` to `most` entries. transposed: [f, rows.cols].
template <NmfLoss loss, int Threads>
__global__ void __launch_bounds__(Threads)
    nmfEntryRows(NmfArgs a, const float* transposed, float* predictions, int64_t least, int64_t most) {
  SIMT_SHARED(float, parts, (2 * nmfLongThreads / 32));
  const int64_t f = a.fixed.cols;
  for (int64_t u = blockIdx.x; u < a.rows.rows; u += gridDim.x) {
    const int64_t begin = a.rows.indptr[u], entries = a.rows.indptr[u + 1] - begin;
    float* w = a.out + u * f;
    if (entries < least || entries > most) continue;
    if (entries == 0) {
      for (int64_t k = threadIdx.x; k < f; k += Threads) w[k] = 0;
      continue;
    }
    const NmfRow<Threads> row{
        a.rows.indices + begin, a.rows.values + begin, transposed, predictions + begin, entries, a.rows.cols, parts};
    for (int32_t pass = 0; pass < a.passes; ++pass) {
      if (loss == NmfLoss::kl || pass == 0) {
        for (int64_t i = threadIdx.x; i < entries; i += Threads) {
          row.predictions[i] = loss == NmfLoss::kl ? 0.0f : -row.x[i];
        }
        for (int64_t k = 0; k < f; ++k) row.add(k, w[k]);
      }
      for (int64_t k = 0; k < f; ++k) {
        float best;
        if constexpr (loss == NmfLoss::frobenius) {
          best = frobeniusMinimum(row, k, a.reg[u], w[k]);
        } else {
          float sum = 0, unused = 0;
          if (a.sums) {
            sum = a.sums[k];
          } else {
            row.forEach(k, [&](int64_t, float h) { sum += h; });
            row.sum(sum, unused);
          }
          best = klMinimum(row, k, sum, a.reg[u], w[k]);
        }
        if (threadIdx.x == 0) w[k] = best;  // behind a sum: all have read it
      }
      row.barrier();
    }
  }
}

template <NmfLoss loss>
void queueNmfEntries(Queue& queue, const NmfArgs& a, const float* transposed) {
  float* predictions = queue.workspace<float>(queue.fetch(a.rows.indptr + a.rows.rows));
  const int64_t most = int64_t{8} * queue.multiprocessors();
  queue.launch("nmfEntryRows", nmfEntryRows<loss, 32>, {a.rows.rows}, 32, a, transposed, predictions, 0, nmfLong);
  queue.launch("nmfEntryRows", nmfEntryRows<loss, nmfLongThreads>, {a.rows.rows < most ? a.rows.rows : most},
               nmfLongThreads, a, transposed, predictions, nmfLong + 1, INT64_MAX);
}

/// The `nmf` slot.
inline Status nmf(const Exec& exec, const NmfArgs& a) {
  Queue queue(exec);
  const int64_t rows = a.rows.rows, f = a.fixed.cols;
  if (rows == 0 || f == 0) return queue.status();
  if (a.loss == NmfLoss::frobenius && a.gram) {
    float* products = queue.workspace<float>(rows * f);
    queueSpmm(queue, {a.rows, nullptr, rows, a.fixed.data, f, f, products, f});
    const Grid grid{rows, 1, 2 * f * static_cast<int64_t>(sizeof(float))};
    queue.launch("nmfFrobeniusRows", nmfFrobeniusRows, grid, 32, a, products);
    return queue.status();
  }
  float* transposed = queue.workspace<float>(a.fixed.rows * f);
  const Grid tiles{(a.fixed.rows + nmfTile - 1) / nmfTile, (f + nmfTile - 1) / nmfTile};
  if (a.fixed.rows > 0) queue.launch("nmfTranspose", nmfTranspose, tiles, nmfTile * 8, a.fixed, transposed);
  if (a.loss == NmfLoss::kl) queueNmfEntries<NmfLoss::kl>(queue, a, transposed);
  else queueNmfEntries<NmfLoss::frobenius>(queue, a, transposed);
  return queue.status();
}

}  // namespace topknot::cuda
