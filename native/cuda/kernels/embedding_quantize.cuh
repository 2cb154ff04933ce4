// Rows in 8 or 4 bits, the CUDA side of cpu/kernels/embedding_quantize.cpp: a warp for each row, the same bits.
#pragma once
#include <cmath>

#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

/// `bad` becomes count - r for the first row r with a number that is not finite.
__global__ void __launch_bounds__(embeddingThreads) quantizeRows(EmbeddingQuantizeArgs a, unsigned long long* bad) {
  const int64_t r = warpOfGrid();
  if (r >= a.count) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float* row = a.rows + r * a.cols;
  float least = row[0], largest = row[0];
  bool finite = true;
  for (int64_t c = lane; c < a.cols; c += 32) {
    finite = finite && fabsf(row[c]) <= 3.4028235e38f;
    least = fminf(least, row[c]);
    largest = fmaxf(largest, row[c]);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    least = fminf(least, __shfl_xor_sync(allLanes, least, distance));
    largest = fmaxf(largest, __shfl_xor_sync(allLanes, largest, distance));
  }
  if (!__all_sync(allLanes, finite)) {
    if (lane == 0) atomicMax(bad, static_cast<unsigned long long>(a.count - r));
    return;
  }
  const bool bytes = a.format == RowFormat::int8;
  const float levels = bytes ? 255.0f : 15.0f;
  const float scale = largest / levels - least / levels;  // the difference alone may overflow
  if (lane == 0) {
    a.scale[r] = scale;
    a.bias[r] = bytes ? fmaf(128.0f, scale, least) : least;
  }
  const double inverse = scale > 0 ? 1.0 / static_cast<double>(scale) : 0.0;
  const auto level = [&](int64_t c) {
    const double steps = (static_cast<double>(row[c]) - static_cast<double>(least)) * inverse;
    return static_cast<int>(fmin(steps, static_cast<double>(levels)) + 0.5);
  };
  if (bytes) {
    int8_t* out = static_cast<int8_t*>(a.out) + r * a.cols;
    for (int64_t c = lane; c < a.cols; c += 32) out[c] = static_cast<int8_t>(level(c) - 128);
    return;
  }
  uint8_t* out = static_cast<uint8_t*>(a.out) + r * a.cols / 2;
  for (int64_t c = 2 * lane; c < a.cols; c += 64) out[c / 2] = static_cast<uint8_t>(level(c) | level(c + 1) << 4);
}

/// The `embeddingQuantize` slot.
inline Status embeddingQuantize(const Exec& exec, const EmbeddingQuantizeArgs& a) {
  Queue queue(exec);
  if (a.count == 0) return queue.status();
  unsigned long long* bad = queue.zero<unsigned long long>();
  queue.launch("quantizeRows", quantizeRows, warpGrid(a.count), embeddingThreads, a, bad);
  if (const unsigned long long left = queue.fetch(bad)) {
    const long long row = a.count - static_cast<long long>(left);
    queue.fail(failure(ErrorCode::value, "table: expected finite numbers but row %lld has others", row));
  }
  return queue.status();
}

}  // namespace topknot::cuda
