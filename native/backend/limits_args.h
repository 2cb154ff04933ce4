// What the kernels that measure a machine are given.
#pragma once
#include <cstdint>

namespace topknot {

/// Reads `data` once, from front to back: the memory limit that the benchmarks compare with.
struct MeasureReadArgs {
  const float* data;
  int64_t count;
  double* out;  // the sum, so that no read can be left out
};

/// Touches every cache line of the rows `ids` of a table, in that order and with prefetch: the limit of lookups. With
/// `write` the lines are also written, with what they hold.
struct MeasureRowsArgs {
  float* data;
  int64_t cols;
  const int32_t* ids;
  int64_t count;
  bool write;
  double* out;  // the sum, so that no read can be left out
};

/// `tasks` chains of fused multiply-adds in registers: the arithmetic limit that the benchmarks compare with.
struct MeasureFmaArgs {
  int64_t tasks;
  float a, b;      // x = x * a + b
  double* out;     // the sum, so that no operation can be left out
  int64_t* flops;  // operations done, a multiply-add being two
};

}  // namespace topknot
