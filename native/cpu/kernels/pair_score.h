// The score of one (query, item) pair, in float64 and in a fixed order: the same bits on every instruction set and in
// every batch. (A product of two float32 is exact in float64, so a fused multiply-add would change nothing.)
#pragma once
#include <cmath>
#include <cstdint>

namespace topknot {

inline double pairDot(const float* a, const float* b, int64_t n) {
  double sum[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  }
  for (int j = 0; i < n; ++i, ++j) sum[j] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

inline double pairSquaredDistance(const float* a, const float* b, int64_t n) {
  double sum[8] = {};
  const auto square = [&](int64_t i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
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
inline double pairCosine(const float* a, double squaredNormA, const float* b, int64_t n) {
  const double norms = squaredNormA * pairDot(b, b, n);
  return norms > 0 ? pairDot(a, b, n) / std::sqrt(norms) : 0;
}

}  // namespace topknot
