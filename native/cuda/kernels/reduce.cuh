// Sums, means and maxima along one dimension, the CUDA side of cpu/kernels/reduce.cpp. A dimension is cut into pieces
// of fixed length, what they give is reduced in the same way until one piece is left: the order of additions depends on
// the length alone, and no chain of them is longer than a piece.
#pragma once
#include "cuda/kernels/elementwise.cuh"

namespace topknot::cuda {

inline constexpr int64_t rowPiece = 1024;  // of numbers side by side, by a warp
inline constexpr int64_t downPiece = 128;  // of numbers below each other, by a thread

/// Warp t, for inner = 1: piece t % pieces of row t / pieces.
template <typename Merge>
__global__ void __launch_bounds__(teamThreads) reduceRows(ReduceArgs a, int64_t pieces, float divisor) {
  const int64_t task = teamRow<32>();
  if (task >= a.outer * pieces) return;
  const int64_t begin = task % pieces * rowPiece;
  const int64_t end = begin + rowPiece < a.length ? begin + rowPiece : a.length;
  const float* x = a.x + task / pieces * a.length;
  float result = Merge::start();
  for (int64_t i = begin + teamLane<32>(); i < end; i += 32) result = Merge::of(result, x[i]);
  result = warpMerge<Merge>(result);
  if (teamLane<32>() == 0) a.out[task] = result / divisor;
}

/// Thread t: column t % inner of piece t / inner % pieces; neighbours read neighbours.
template <typename Merge>
__global__ void __launch_bounds__(elementThreads) reduceDown(ReduceArgs a, int64_t pieces, float divisor) {
  const int64_t task = threadOfGrid();
  if (task >= a.outer * pieces * a.inner) return;
  const int64_t o = task / a.inner / pieces, begin = task / a.inner % pieces * downPiece;
  const int64_t end = begin + downPiece < a.length ? begin + downPiece : a.length;
  const float* x = a.x + o * a.length * a.inner + task % a.inner;
  float result = Merge::start();
  for (int64_t l = begin; l < end; ++l) result = Merge::of(result, x[l * a.inner]);
  a.out[task] = result / divisor;
}

template <typename Merge>
void queueReduce(Queue& queue, ReduceArgs a) {
  const bool rows = a.inner == 1;
  const int64_t piece = rows ? rowPiece : downPiece;
  float* const out = a.out;
  if (a.outer * a.inner == 0) return;
  const auto mean = static_cast<float>(a.length);
  while (true) {
    const int64_t pieces = a.length > piece ? (a.length + piece - 1) / piece : 1, tasks = a.outer * pieces * a.inner;
    a.out = pieces == 1 ? out : queue.workspace<float>(tasks);
    const float divisor = pieces == 1 && a.kind == Reduction::mean ? mean : 1.0f;
    if (rows) queue.launch("reduceRows", reduceRows<Merge>, teamGrid<32>(tasks), teamThreads, a, pieces, divisor);
    else queue.launch("reduceDown", reduceDown<Merge>, elementGrid(tasks), elementThreads, a, pieces, divisor);
    if (pieces == 1) return;
    a.x = a.out;
    a.length = pieces;
  }
}

/// The `reduce` slot.
inline Status reduce(const Exec& exec, const ReduceArgs& a) {
  Queue queue(exec);
  if (a.kind == Reduction::max) queueReduce<Maximum>(queue, a);
  else queueReduce<Sum>(queue, a);
  return queue.status();
}

}  // namespace topknot::cuda
