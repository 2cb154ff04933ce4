// Bayesian personalized ranking, the CUDA side of cpu/kernels/bpr.cpp: a warp takes a task, whose positives it handles
// one after the other, as their order is part of the result. The negatives of a batch of positives are drawn first:
// draws do not depend on the factors, so the lanes make 32 at once.
#pragma once
#include "backend/bpr_args.h"
#include "cuda/kernels/factor_rows.cuh"
#include "cuda/kernels/negatives.cuh"

namespace topknot::cuda {

inline constexpr int64_t bprDraws = 1024;  // that a warp keeps

/// The best-scored candidate, the first of equals; -1 without any.
template <int V>
SIMT_DEVICE int32_t bestCandidate(const BprArgs& a, const float* x, const int32_t* candidates) {
  if (a.candidates == 1) return *candidates;
  int32_t best = -1;
  float most = 0;
  for (int32_t n = 0; n < a.candidates; ++n) {
    const int32_t item = candidates[n];
    if (item < 0) continue;
    const float score =
        dotRows<V>(x, a.itemFactors + item * a.stride, a.stride) + (a.itemBiases ? a.itemBiases[item] : 0.0f);
    if (best >= 0 && !(score > most)) continue;
    best = item;
    most = score;
  }
  return best;
}

/// The step of positive p. By a whole warp.
template <int V, bool itemsFixed>
SIMT_DEVICE void bprStep(const BprArgs& a, int64_t p, const int32_t* candidates, BprOutcome& outcome) {
  const int64_t i = a.positiveItems[p];
  float* x = a.userFactors + a.positiveUsers[p] * a.stride;
  const int64_t j = bestCandidate<V>(a, x, candidates);
  if (j < 0) return;
  float *y = a.itemFactors + i * a.stride, *z = a.itemFactors + j * a.stride;
  float margin = 0;
  forColumns<V>(a.stride, [&](int64_t c) {
    float xs[V], ys[V], zs[V];
    loadFactors(x, c, xs);
    loadFactors(y, c, ys);
    loadFactors(z, c, zs);
    for (int k = 0; k < V; ++k) margin = fmaf(xs[k], ys[k] - zs[k], margin);
  });
  margin = warpSum(margin);
  if (a.itemBiases) margin += a.itemBiases[i] - a.itemBiases[j];
  const float g = 1.0f / (1.0f + expf(margin)), keep = 1.0f - a.rate * a.regularization, move = a.rate * g;
  forColumns<V>(a.stride, [&](int64_t c) {
    float xs[V], ys[V], zs[V], stepped[V];
    loadFactors(x, c, xs);
    loadFactors(y, c, ys);
    loadFactors(z, c, zs);
    for (int k = 0; k < V; ++k) stepped[k] = fmaf(move, ys[k] - zs[k], keep * xs[k]);
    storeColumns(x, c, stepped);
    if constexpr (!itemsFixed) {
      for (int k = 0; k < V; ++k) {
        ys[k] = fmaf(keep, ys[k], move * xs[k]);
        zs[k] = fmaf(keep, zs[k], -(move * xs[k]));
      }
      storeColumns(y, c, ys);
      storeColumns(z, c, zs);
    }
  });
  if (!itemsFixed && a.itemBiases) {
    __syncwarp(allLanes);  // all lanes have read the biases
    if (threadIdx.x % 32 == 0) {
      a.itemBiases[i] = fmaf(keep, a.itemBiases[i], move);
      a.itemBiases[j] = fmaf(keep, a.itemBiases[j], -move);
    }
    __syncwarp(allLanes);
  }
  ++outcome.samples;
  if (a.wantLoss) {
    const double m = static_cast<double>(margin);
    outcome.loss += (m < 0 ? -m : 0.0) + log1p(exp(m < 0 ? m : -m));
  }
}

/// Block t, of one warp, runs task t; `batch` positives at a time.
template <int V, bool itemsFixed>
__global__ void __launch_bounds__(32) bprTasks(BprArgs a, int64_t batch) {
  SIMT_DYNAMIC_SHARED(memory);  // the candidates of a batch
  int32_t* drawn = reinterpret_cast<int32_t*>(memory);
  const BprTask task = a.tasks[blockIdx.x];
  NegativeDraws draws{a.pool + task.poolBegin, static_cast<uint32_t>(task.poolEnd - task.poolBegin), a.seed,
                      task.stream, 0};
  BprOutcome outcome{};
  for (int64_t begin = task.begin; begin < task.end; begin += batch) {
    const int64_t end = begin + batch < task.end ? begin + batch : task.end;
    const auto userOf = [&](int64_t slot) { return a.positiveUsers[begin + slot / a.candidates]; };
    drawNegatives<false>(a.users, draws, (end - begin) * a.candidates, userOf, drawn);
    for (int64_t p = begin; p < end; ++p) bprStep<V, itemsFixed>(a, p, drawn + (p - begin) * a.candidates, outcome);
    __syncwarp(allLanes);  // the next batch may be drawn
  }
  if (threadIdx.x == 0) a.outcomes[blockIdx.x] = outcome;
}

/// The `bpr` slot.
inline Status bpr(const Exec& exec, const BprArgs& a) {
  Queue queue(exec);
  if (a.taskCount == 0) return queue.status();
  int64_t batch = bprDraws / a.candidates;
  batch = batch < 1 ? 1 : batch > 32 ? 32 : batch;
  const Grid grid{a.taskCount, 1, batch * a.candidates * static_cast<int64_t>(sizeof(int32_t))};
  withStrideColumns(a.stride, [&](auto columns) {
    constexpr int v = decltype(columns)::value;
    queue.launch("bprTasks", a.itemsFixed ? bprTasks<v, true> : bprTasks<v, false>, grid, 32, a, batch);
  });
  return queue.status();
}

}  // namespace topknot::cuda
