// Vectors in 8 bits: x ≈ scale * code, symmetric about zero, with the length of what that leaves out.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cpu/kernels/pair_score.h"

namespace topknot {

struct Int8Row {
  float scale = 0;
  double residual = 0;  // |factor * x - scale * codes|
  int32_t sum = 0;      // of the codes
};

/// codes[i] = offset + the integer nearest to factor * x[i] / scale, of magnitude at most `largest`, which the largest
/// element has. All zero: scale 0.
template <class T, class Code>
Int8Row quantizeRow(const T* x, int64_t n, double factor, int largest, int offset, Code* codes) {
  Int8Row row;
  double most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(factor * wide(x[i])));
  row.scale = static_cast<float>(most / largest);
  const double scale = static_cast<double>(row.scale), inverse = scale > 0 ? 1 / scale : 0;
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double value = factor * wide(x[i]), steps = value * inverse;
    const int code = std::clamp(static_cast<int>(std::copysign(std::fabs(steps) + 0.5, steps)), -largest, largest);
    const double left = value - scale * code;
    squares += left * left;
    row.sum += code;
    codes[i] = static_cast<Code>(code + offset);
  }
  row.residual = std::sqrt(squares);
  return row;
}

}  // namespace topknot
