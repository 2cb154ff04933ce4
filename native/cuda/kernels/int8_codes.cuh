// The 8-bit codes of items, the CUDA side of cpu/kernels/int8_codes.cpp: eight lanes for each row, float64 as there, so
// that codes and scales are the same; a residual may be one float32 step larger or smaller, and is an upper bound
// still.
#pragma once
#include <cmath>

#include "cuda/kernels/pair_score.cuh"

namespace topknot::cuda {

struct Int8Row {
  float scale;
  double residual;  // |factor * x - scale * codes|
};

/// codes[i] = offset + the integer nearest to factor * x[i] / scale, of magnitude at most `largest`, which the largest
/// element has. All zero: scale 0. By eight lanes.
template <RowFormat format, typename Code>
SIMT_DEVICE Int8Row quantizeRow(const void* x, int64_t n, double factor, int largest, int offset, Code* codes) {
  double most = 0;
  for (int64_t c = pairLane(); c < n; c += pairLanes) most = fmax(most, fabs(factor * doubleAt<format>(x, c)));
  for (int distance = pairLanes / 2; distance > 0; distance /= 2) {
    most = fmax(most, __shfl_xor_sync(allLanes, most, distance));
  }
  const float rounded = static_cast<float>(most / largest);
  const double scale = static_cast<double>(rounded), inverse = scale > 0 ? 1 / scale : 0;
  double squares = 0;
  for (int64_t c = pairLane(); c < n; c += pairLanes) {
    const double value = factor * doubleAt<format>(x, c), steps = value * inverse;
    int code = static_cast<int>(copysign(fabs(steps) + 0.5, steps));
    code = code < -largest ? -largest : code > largest ? largest : code;
    const double left = value - scale * code;
    squares += left * left;
    codes[c] = static_cast<Code>(code + offset);
  }
  return {rounded, sqrt(pairSum(squares))};
}

template <RowFormat format>
__global__ void __launch_bounds__(pairThreads) int8CodesOf(Int8CodesArgs a) {
  const int64_t row = pairGroup(), dims = a.items.cols;
  const bool inside = row < a.items.rows;
  const int64_t n = inside ? dims : 0;
  const void* x = floatRow<format>(a.items.data, inside ? row : 0, dims);
  const double norm = a.unit ? pairDot<format, format>(x, x, n) : 1;
  const double factor = norm > 0 ? 1 / sqrt(norm) : 0;
  const Int8Row made = quantizeRow<format>(x, n, factor, 127, 128, a.codes + (inside ? row : 0) * dims);
  if (!inside || pairLane() != 0) return;
  a.scales[row] = made.scale;
  // Rounded up, and more than float64's own rounding.
  a.residuals[row] = nextafterf(static_cast<float>(made.residual * (1 + 1e-6)), INFINITY);
}

/// The `int8Codes` slot.
inline Status int8Codes(const Exec& exec, const Int8CodesArgs& a) {
  Queue queue(exec);
  if (a.items.rows == 0) return queue.status();
  withFloats(a.items.type, [&](auto format) {
    queue.launch("int8Codes", int8CodesOf<decltype(format)::value>, pairGrid(a.items.rows), pairThreads, a);
  });
  return queue.status();
}

}  // namespace topknot::cuda
