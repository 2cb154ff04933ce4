// The scan of few queries: rows of items are read one after the other, at the speed of memory.
#if defined(TOPKNOT_TOPK_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_TOPK_ROWS_INL
#undef TOPKNOT_TOPK_ROWS_INL
#else
#define TOPKNOT_TOPK_ROWS_INL
#endif

#include <hwy/cache_control.h>

#include "cpu/kernels/load-inl.h"
#include "cpu/kernels/topk_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr int64_t prefetchBytes = 1024;  // how far ahead of the row in hand memory is asked for
constexpr int64_t prefetchRows = 16;     // the same where rows are not adjacent

/// Adds up the lanes of each of `lanes` vectors: lane i of the result is the sum of v[i].
HWY_INLINE Floats sumEach(const Floats (&of)[lanes]) {
  const FloatTag d;
  Floats v[lanes];
#pragma GCC unroll 16
  for (int64_t i = 0; i < lanes; ++i) v[i] = of[i];
#pragma GCC unroll 4
  for (int64_t n = lanes / 2; n > 0; n /= 2) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < n; ++i) {
      v[i] = hn::Add(hn::ConcatEven(d, v[2 * i + 1], v[2 * i]), hn::ConcatOdd(d, v[2 * i + 1], v[2 * i]));
    }
  }
  return v[0];
}

/// The dot products of one row with Q packed queries, still spread over the lanes. `rest` is zero behind the last
/// dims % lanes elements.
template <int Q, class T>
HWY_INLINE void dotRow(const T* HWY_RESTRICT row, const float* HWY_RESTRICT queries, int64_t dims, int64_t padded,
                       T* HWY_RESTRICT rest, Floats (&sums)[Q][lanes], int64_t r) {
  constexpr int unroll = Q == 1 ? 4 : 2;  // chains, to hide the latency of multiply-adds
  const FloatTag d;
  Floats parts[unroll][Q];
  const auto add = [&](int u, const T* x, int64_t k) HWY_ATTR {
    const Floats v = loadFloats(d, x);
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) parts[u][q] = hn::MulAdd(v, hn::Load(d, queries + q * padded + k), parts[u][q]);
  };
#pragma GCC unroll 4
  for (int u = 0; u < unroll; ++u) {
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) parts[u][q] = hn::Zero(d);
  }
  int64_t k = 0;
  for (; k + unroll * lanes <= dims; k += unroll * lanes) {
#pragma GCC unroll 4
    for (int u = 0; u < unroll; ++u) add(u, row + k + u * lanes, k + u * lanes);
  }
  for (; k + lanes <= dims; k += lanes) add(0, row + k, k);
  if (k < dims) {
    std::memcpy(rest, row + k, static_cast<size_t>(dims - k) * sizeof(T));
    add(1, rest, k);
  }
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) {
    Floats sum = hn::Add(parts[0][q], parts[1][q]);
    if constexpr (unroll == 4) sum = hn::Add(sum, hn::Add(parts[2][q], parts[3][q]));
    sums[q][r] = sum;
  }
}

/// Items [begin, end) against Q queries, `lanes` items at a time, each row read from its start to its end: interleaving
/// rows would defeat the prefetcher.
template <class T, int Q, bool affine>
void scanRows(const Block<TopkScan>& b, Candidates& candidates, int64_t begin, int64_t end) {
  const FloatTag d;
  const TopkScan& scan = b.scan;
  const T* items = static_cast<const T*>(scan.args.items.data);
  const int64_t dims = scan.args.items.cols;
  const int64_t padded = (dims + lanes - 1) / lanes * lanes;
  const bool listed = scan.items.listed();
  HWY_ALIGN T rest[lanes] = {};
  HWY_ALIGN float scales[lanes] = {}, offsets[lanes] = {};
  Floats sums[Q][lanes];
  for (int q = 0; q < Q; ++q) {
    for (int64_t r = 0; r < lanes; ++r) sums[q][r] = hn::Zero(d);
  }
  for (int64_t j = begin; j < end; j += lanes) {
    const int64_t count = std::min<int64_t>(lanes, end - j);
    const T* row = items + j * dims;
    for (int64_t r = 0; r < count; ++r, row += dims) {
      const T* ahead = row + prefetchBytes / sizeof(T);
      if (listed) {
        row = items + scan.items.at(j + r) * dims;
        ahead = items + scan.items.at(std::min(j + r + prefetchRows, end - 1)) * dims;
      }
      for (int64_t k = 0; k < dims; k += 64 / sizeof(T)) hwy::Prefetch(ahead + k);
      dotRow<Q>(row, b.packed, dims, padded, rest, sums, r);
    }
    if (affine) itemTerms(scan, j, count, scales, offsets);
    for (int q = 0; q < Q; ++q) {
      Floats score = sumEach(sums[q]);
      if (affine) score = hn::MulAdd(score, hn::Load(d, scales), hn::Load(d, offsets));
      if (!hn::AllTrue(d, hn::Le(score, hn::Set(d, candidates.thresholds()[q])))) {
        HWY_ALIGN float scores[lanes];
        hn::Store(score, d, scores);
        for (int64_t r = 0; r < count; ++r) {
          if (!(scores[r] <= candidates.thresholds()[q])) scan.offer(candidates, b.first + q, q, j + r, scores[r]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
