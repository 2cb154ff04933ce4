// Softmax and its logarithm over rows, the CUDA side of cpu/kernels/softmax.cpp. A team takes a row, and reads it again
// from the cache for every step.
#pragma once
#include <cmath>

#include "backend/blocks_args.h"
#include "cuda/kernels/team.cuh"

namespace topknot::cuda {

template <int size>
__global__ void __launch_bounds__(teamThreads) softmaxRows(SoftmaxArgs a) {
  const int64_t row = teamRow<size>();
  if (row >= a.rows) return;  // a whole warp; a block that is one team has a row
  const float* x = a.x + row * a.cols;
  float* out = a.out + row * a.cols;
  float largest = Maximum::start();
  for (int64_t c = teamLane<size>(); c < a.cols; c += size) largest = Maximum::of(largest, x[c]);
  largest = teamMerge<size, Maximum>(largest);
  const bool empty = largest == Maximum::start();  // nothing but -infinity
  float sum = 0;
  for (int64_t c = teamLane<size>(); c < a.cols; c += size) sum += expf(x[c] - largest);
  sum = teamMerge<size, Sum>(sum);
  const float factor = 1 / sum, logSum = logf(sum);
  for (int64_t c = teamLane<size>(); c < a.cols; c += size) {
    // The maximum goes first: added to the logarithm it would take its digits.
    if (a.log) out[c] = empty ? largest : x[c] - largest - logSum;
    else out[c] = empty ? 0.0f : expf(x[c] - largest) * factor;
  }
}

template <int size>
__global__ void __launch_bounds__(teamThreads) softmaxGradientRows(SoftmaxGradientArgs a) {
  const int64_t row = teamRow<size>();
  if (row >= a.rows) return;
  const float *y = a.y + row * a.cols, *gradient = a.gradient + row * a.cols;
  float* out = a.out + row * a.cols;
  float sum = 0;
  for (int64_t c = teamLane<size>(); c < a.cols; c += size) {
    sum = a.log ? sum + gradient[c] : fmaf(gradient[c], y[c], sum);
  }
  sum = teamMerge<size, Sum>(sum);
  for (int64_t c = teamLane<size>(); c < a.cols; c += size) {
    out[c] = a.log ? fmaf(-expf(y[c]), sum, gradient[c]) : y[c] * (gradient[c] - sum);
  }
}

/// The `softmax` slot.
inline Status softmax(const Exec& exec, const SoftmaxArgs& a) {
  Queue queue(exec);
  if (a.rows == 0 || a.cols == 0) return queue.status();
  withTeams(a.cols, [&](auto team) {
    constexpr int size = decltype(team)::value;
    queue.launch("softmax", softmaxRows<size>, teamGrid<size>(a.rows), teamThreads, a);
  });
  return queue.status();
}

/// The `softmaxGradient` slot.
inline Status softmaxGradient(const Exec& exec, const SoftmaxGradientArgs& a) {
  Queue queue(exec);
  if (a.rows == 0 || a.cols == 0) return queue.status();
  withTeams(a.cols, [&](auto team) {
    constexpr int size = decltype(team)::value;
    queue.launch("softmaxGradient", softmaxGradientRows<size>, teamGrid<size>(a.rows), teamThreads, a);
  });
  return queue.status();
}

}  // namespace topknot::cuda
