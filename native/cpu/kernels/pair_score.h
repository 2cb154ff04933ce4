// The score of one (query, item) pair, in float64 and in a fixed order: the same bits on every instruction set and in
// every batch. (A product of two float32 is exact in float64, so a fused multiply-add would change nothing.)
#pragma once
#include <cmath>
#include <cstdint>

#include "backend/views.h"
#include "core/dtype.h"

namespace topknot {

inline double wide(float x) { return static_cast<double>(x); }
inline double wide(Float16 x) { return static_cast<double>(toFloat(x)); }
inline double wide(BFloat16 x) { return static_cast<double>(toFloat(x)); }

template <class A, class B>
double pairDot(const A* a, const B* b, int64_t n) {
  double sum[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] += wide(a[i + j]) * wide(b[i + j]);
  }
  for (int j = 0; i < n; ++i, ++j) sum[j] += wide(a[i]) * wide(b[i]);
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

template <class A, class B>
double pairSquaredDistance(const A* a, const B* b, int64_t n) {
  double sum[8] = {};
  const auto square = [&](int64_t i) {
    const double difference = wide(a[i]) - wide(b[i]);
    return difference * difference;
  };
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] += square(i + j);
  }
  for (int j = 0; i < n; ++i, ++j) sum[j] += square(i);
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/// squaredNormA is a·a; a zero vector scores 0.
template <class A, class B>
double pairCosine(const A* a, double squaredNormA, const B* b, int64_t n) {
  const double norms = squaredNormA * pairDot(b, b, n);
  return norms > 0 ? pairDot(a, b, n) / std::sqrt(norms) : 0;
}

/// Calls f with a row of the matrix as a pointer to its own type.
template <typename F>
decltype(auto) withRow(const FloatMatrixView& m, int64_t i, F&& f) {
  switch (m.type) {
    case FloatType::float16:
      return f(reinterpret_cast<const Float16*>(m.row(i)));
    case FloatType::bfloat16:
      return f(reinterpret_cast<const BFloat16*>(m.row(i)));
    default:
      return f(reinterpret_cast<const float*>(m.row(i)));
  }
}

}  // namespace topknot
