// What the kernels that only move numbers are given.
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace topknot {

/// out[i] = x[i] as another element type (core/convert.h).
struct CastArgs {
  const void* x;  // [count] of `from`
  DType from;
  void* out;  // [count] of `to`
  DType to;
  int64_t count;
  int64_t* first;  // the place of the first number that `to` does not hold; `count` where there is none
};

/// to[r][c] = scale * from[r][c], or from[c][r] when transposed; the rows of each matrix are a stride of floats apart.
/// A stride of 0 repeats a row. The two may not overlap unless they are one and the same, not transposed.
struct CopyMatrixArgs {
  int64_t rows, cols;  // of `to`
  const float* from;
  int64_t fromStride;
  float* to;
  int64_t toStride;
  bool transposed = false;
  float scale = 1;
};

}  // namespace topknot
