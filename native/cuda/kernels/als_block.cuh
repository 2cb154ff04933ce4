// What lies between the blocks of a half-sweep of iALS++, the CUDA side of cpu/kernels/als_block.cpp: a thread for each
// number.
#pragma once
#include "cuda/kernels/csr_scores.cuh"

namespace topknot::cuda {

inline constexpr int alsCopyThreads = 256;

/// Blocks for `count` numbers; a grid of the most blocks takes several rounds.
inline Grid alsCopyGrid(int64_t count) {
  const int64_t blocks = (count + alsCopyThreads - 1) / alsCopyThreads;
  return {blocks < 1 ? 1 : blocks < 65536 ? blocks : 65536};
}

SIMT_DEVICE int64_t alsFirst() { return int64_t{blockIdx.x} * alsCopyThreads + threadIdx.x; }
SIMT_DEVICE int64_t alsApart() { return int64_t{gridDim.x} * alsCopyThreads; }

__global__ void __launch_bounds__(alsCopyThreads) alsTargets(AlsBlockArgs a) {
  const int64_t nnz = a.rows.indptr[a.rows.rows];
  for (int64_t e = alsFirst(); e < nnz; e += alsApart()) {
    const float w = a.rows.values[e];
    a.targets[e] = fmaf(-w, a.scores[e], w + a.bonus);
  }
}

/// to [rows, size] = columns [begin, begin + size) of from, times -reg of the row where there is one.
__global__ void __launch_bounds__(alsCopyThreads) alsColumns(const float* from, const float* reg, int64_t rows,
                                                             int64_t cols, int64_t begin, int64_t size, float* to) {
  for (int64_t i = alsFirst(); i < rows * size; i += alsApart()) {
    const int64_t row = i / size;
    const float x = from[row * cols + begin + i % size];
    to[i] = reg ? -reg[row] * x : x;
  }
}

/// The `alsBlock` slot.
inline Status alsBlock(const Exec& exec, const AlsBlockArgs& a) {
  Queue queue(exec);
  const int64_t f = a.fixed.cols;
  const auto columns = [&](const float* from, const float* reg, int64_t rows, float* to) {
    queue.launch("alsColumns", alsColumns, alsCopyGrid(rows * a.size), alsCopyThreads, from, reg, rows, f, a.begin,
                 a.size, to);
  };
  queue.launch("alsTargets", alsTargets, {entryBlocks(a.rows)}, alsCopyThreads, a);
  columns(a.x.data, a.reg, a.rows.rows, a.offset);
  columns(a.fixed.data, nullptr, a.fixed.rows, a.fixedBlock);
  columns(a.gram + a.begin * f, nullptr, a.size, a.gramBlock);
  return queue.status();
}

__global__ void __launch_bounds__(alsCopyThreads) alsAddStep(AlsStepArgs a) {
  for (int64_t i = alsFirst(); i < a.rows.rows * a.size; i += alsApart()) {
    const int64_t row = i / a.size;
    float& x = a.x[row * a.f + a.begin + i % a.size];
    x = a.rows.indptr[row] == a.rows.indptr[row + 1] ? 0.0f : x + a.step[i];
  }
}

/// The `alsStep` slot.
inline Status alsStep(const Exec& exec, const AlsStepArgs& a) {
  Queue queue(exec);
  queue.launch("alsAddStep", alsAddStep, alsCopyGrid(a.rows.rows * a.size), alsCopyThreads, a);
  return queue.status();
}

}  // namespace topknot::cuda
