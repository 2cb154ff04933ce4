// out = scale mᵀm, the CUDA side of cpu/kernels/gram.cpp: the rows are cut into slices, whose products fill the device;
// their sums run in the order of the slices.
#pragma once
#include "backend/als_args.h"
#include "cuda/kernels/matmul.cuh"

namespace topknot::cuda {

inline constexpr int64_t gramSliceRows = 4096;

__global__ void __launch_bounds__(256)
    gramSum(const float* parts, int64_t slices, int64_t size, float scale, float* out) {
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= size) return;
  double sum = 0;
  for (int64_t s = 0; s < slices; ++s) sum += parts[s * size + i];
  out[i] = static_cast<float>(sum * scale);
}

inline void queueGram(Queue& queue, const GramArgs& a) {
  const int64_t f = a.m.cols, whole = a.m.rows / gramSliceRows, rest = a.m.rows % gramSliceRows;
  if (f == 0) return;
  const int64_t slices = whole + (rest > 0 ? 1 : 0);
  float* parts = queue.workspace<float>(slices * f * f);
  const auto product = [&](int64_t first, int64_t rows, int64_t count) {
    MatmulArgs args{.m = f,
                    .n = f,
                    .k = rows,
                    .a = {a.m.data + first * f, f, true},
                    .b = {a.m.data + first * f, f},
                    .c = parts + first / gramSliceRows * f * f,
                    .cStride = f};
    args.batch = {.rank = 1, .dims = {count}, .aStride = {rows * f}, .bStride = {rows * f}, .cStride = f * f};
    queueMatmul(queue, args);
  };
  if (whole > 0) product(0, gramSliceRows, whole);
  if (rest > 0) product(whole * gramSliceRows, rest, 1);
  queue.launch("gramSum", gramSum, {(f * f + 255) / 256}, 256, parts, slices, f * f, a.scale, a.out);
}

/// The `gram` slot.
inline Status gram(const Exec& exec, const GramArgs& a) {
  Queue queue(exec);
  queueGram(queue, a);
  return queue.status();
}

}  // namespace topknot::cuda
