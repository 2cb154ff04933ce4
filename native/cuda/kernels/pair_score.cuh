// The score of one (query, item) pair in float64, by eight neighbouring lanes: lane j sums columns j, j + 8, ..., and
// the sums meet in the order of cpu/kernels/pair_score.h, so that both devices give the same bits. (A product of two
// float32 is exact in float64; where it is not, of differences, __dmul_rn keeps it from being fused.)
#pragma once
#include "cuda/kernels/topk_tile.cuh"

namespace topknot::cuda {

inline constexpr int pairLanes = 8;
inline constexpr int pairThreads = 256;  // of a block
inline constexpr int pairGroups = pairThreads / pairLanes;

SIMT_DEVICE int pairLane() { return static_cast<int>(threadIdx.x) % pairLanes; }
/// Which of the groups of a grid this thread is in.
SIMT_DEVICE int64_t pairGroup() { return (int64_t{blockIdx.x} * pairThreads + threadIdx.x) / pairLanes; }
inline Grid pairGrid(int64_t pairs) { return {(pairs + pairGroups - 1) / pairGroups}; }

/// The sum of the group's eight numbers, in every lane. By whole warps.
SIMT_DEVICE double pairSum(double sum) {
  for (int distance = pairLanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(allLanes, sum, distance);
  return sum;
}

template <RowFormat format>
SIMT_DEVICE double doubleAt(const void* row, int64_t c) {
  float x[1];
  loadColumns<format>(row, c, x);
  return static_cast<double>(x[0]);
}

/// Σ a_c b_c over n columns. By whole warps; groups with nothing to do pass n = 0.
template <RowFormat formatA, RowFormat formatB>
SIMT_DEVICE double pairDot(const void* a, const void* b, int64_t n) {
  double sum = 0;
  for (int64_t c = pairLane(); c < n; c += pairLanes) sum += doubleAt<formatA>(a, c) * doubleAt<formatB>(b, c);
  return pairSum(sum);
}

template <RowFormat formatA, RowFormat formatB>
SIMT_DEVICE double pairSquaredDistance(const void* a, const void* b, int64_t n) {
  double sum = 0;
  for (int64_t c = pairLane(); c < n; c += pairLanes) {
    const double difference = doubleAt<formatA>(a, c) - doubleAt<formatB>(b, c);
    sum += __dmul_rn(difference, difference);
  }
  return pairSum(sum);
}

/// The score by which topk ranks an item for a query, rounded once; greater is better, so a squared distance counts
/// negative. item < 0: no pair, but the lanes are needed.
template <RowFormat format>
SIMT_DEVICE float pairScore(const TopkArgs& a, int64_t query, int64_t item) {
  constexpr RowFormat float32 = RowFormat::float32;
  const int64_t n = item < 0 ? 0 : a.items.cols;
  const float* q = a.queries.data + query * a.queries.cols;
  const void* x = floatRow<format>(a.items.data, item < 0 ? 0 : item, a.items.cols);
  if (a.metric == Metric::l2) return static_cast<float>(-pairSquaredDistance<float32, format>(q, x, n));
  const double dot = pairDot<float32, format>(q, x, n);
  if (a.metric == Metric::innerProduct) return static_cast<float>(dot);
  const double norms = pairDot<float32, float32>(q, q, n) * pairDot<format, format>(x, x, n);
  const bool zero = item < 0 || a.itemNorms[item] == 0 || !(norms > 0);
  return zero ? 0.0f : static_cast<float>(dot / sqrt(norms));
}

}  // namespace topknot::cuda
