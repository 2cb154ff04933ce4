// The objective of implicit ALS without its regularisation, the CUDA side of cpu/kernels/als_loss.cpp. The sum over all
// cells, Σ_u x_uᵀ gram x_u, is that of the products of the elements of two Gram matrices. Sums over entries are taken
// in float64, by each warp and then in order.
#pragma once
#include "cuda/kernels/csr_scores.cuh"
#include "cuda/kernels/gram.cuh"

namespace topknot::cuda {

template <int V>
__global__ void __launch_bounds__(embeddingThreads, 2) alsEntriesLoss(AlsLossArgs a, double* parts) {
  double sum = 0;
  forEntryScores<V>(a.rows, a.x, a.y, [&](int64_t e, float dot) {
    const double score = dot, weight = a.rows.values[e], bonus = a.bonus;
    sum += (weight + bonus) * (1 - score) * (1 - score) - bonus * score * score;
  });
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(allLanes, sum, distance);
  if (threadIdx.x % 32 == 0) parts[warpOfGrid()] = sum;
}

/// out = Σ parts + weight Σ a b, by one block.
__global__ void __launch_bounds__(256) alsTotalLoss(const double* parts, int64_t count, const float* a, const float* b,
                                                    int64_t size, float weight, double* out) {
  SIMT_SHARED(double, sums, 256);
  const int thread = static_cast<int>(threadIdx.x);
  double entries = 0, all = 0;
  for (int64_t i = thread; i < count; i += 256) entries += parts[i];
  for (int64_t i = thread; i < size; i += 256) all += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  sums[thread] = entries + static_cast<double>(weight) * all;
  __syncthreads();
  for (int half = 128; half > 0; half /= 2) {
    if (thread < half) sums[thread] += sums[thread + half];
    __syncthreads();
  }
  if (thread == 0) *out = sums[0];
}

/// The `alsLoss` slot.
inline Status alsLoss(const Exec& exec, const AlsLossArgs& a) {
  Queue queue(exec);
  const int64_t f = a.x.cols, blocks = entryBlocks(a.rows);
  float* gram = queue.workspace<float>(f * f);
  queueGram(queue, {.m = a.x, .scale = 1, .out = gram});
  double* parts = queue.workspace<double>(blocks * embeddingWarps);
  withLaneColumns(f, [&](auto columns) {
    queue.launch("alsEntriesLoss", alsEntriesLoss<decltype(columns)::value>, {blocks}, embeddingThreads, a, parts);
  });
  queue.launch("alsTotalLoss", alsTotalLoss, {1}, 256, parts, blocks * embeddingWarps, gram, a.gram, f * f,
               a.unobservedWeight, a.out);
  return queue.status();
}

}  // namespace topknot::cuda
