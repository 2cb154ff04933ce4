// The pieces of a matrix product, for the target being compiled. Both operands are packed into panels,
// [panel][k][lane]: then the register tile (tile-inl.h) reads each of them front to back, whatever their storage and
// transposition.
#if defined(TOPKNOT_MATMUL_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_MATMUL_INL_H
#undef TOPKNOT_MATMUL_INL_H
#else
#define TOPKNOT_MATMUL_INL_H
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "backend/matmul_args.h"
#include "cpu/kernels/embedding_rows-inl.h"
#include "cpu/kernels/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// An operand seen from its panels: element (lane, k) is at lane * laneStride + k * depthStride, and one stride is 1.
struct PanelSource {
  const void* data;
  int64_t laneStride, depthStride;
};

template <RowFormat format>
using StoredAs = std::conditional_t<format == RowFormat::float32, float, uint16_t>;

/// The panel of `lanesHere` < W lanes; the others become zero.
template <int W, RowFormat format>
void packPart(const StoredAs<format>* x, PanelSource s, int64_t lanesHere, int64_t depth, float* out) {
  const hn::FixedTag<float, 1> one;
  for (int64_t k = 0; k < depth; ++k, out += W) {
    for (int64_t lane = 0; lane < lanesHere; ++lane) {
      out[lane] = hn::GetLane(loadColumns<format>(one, x, lane * s.laneStride + k * s.depthStride));
    }
    for (int64_t lane = lanesHere; lane < W; ++lane) out[lane] = 0;
  }
}

/// `panels` whole panels; the lanes of one k lie side by side, so they are read a few cache lines at a time.
template <int W, RowFormat format>
void packRows(const StoredAs<format>* x, int64_t stride, int64_t panels, int64_t depth, float* out) {
  const hn::FixedTag<float, 4> four;
  const hn::FixedTag<float, 2> two;
  constexpr int64_t ahead = 8;
  for (int64_t k = 0; k < depth; ++k, x += stride, out += W) {
    for (int64_t p = 0; p < panels; ++p) {
      const auto* from = x + p * W;
      float* to = out + p * W * depth;
      if (k + ahead < depth) hwy::Prefetch(from + ahead * stride);
#pragma GCC unroll 8
      for (int lane = 0; lane < W / 4 * 4; lane += 4)
        hn::StoreU(loadColumns<format>(four, from, lane), four, to + lane);
      if constexpr (W % 4 == 2) hn::StoreU(loadColumns<format>(two, from, W - 2), two, to + W - 2);
    }
  }
}

/// The elements of one lane lie side by side: blocks of 4 x 4 are transposed on the way.
template <int W, RowFormat format>
void packColumns(const StoredAs<format>* x, int64_t stride, int64_t depth, float* out) {
  const hn::FixedTag<float, 4> four;
  const hn::FixedTag<float, 2> two;
  const hn::FixedTag<double, 2> pairs;
  int64_t k = 0;
  for (; k + 4 <= depth; k += 4, out += 4 * W) {
#pragma GCC unroll 8
    for (int lane = 0; lane < W / 4 * 4; lane += 4) {
      const auto row = [&](int r) HWY_ATTR { return loadColumns<format>(four, x, (lane + r) * stride + k); };
      const auto a = row(0), b = row(1), c = row(2), d = row(3);
      const auto ab = hn::BitCast(pairs, hn::InterleaveLower(four, a, b)),
                 cd = hn::BitCast(pairs, hn::InterleaveLower(four, c, d));
      const auto ef = hn::BitCast(pairs, hn::InterleaveUpper(four, a, b)),
                 gh = hn::BitCast(pairs, hn::InterleaveUpper(four, c, d));
      hn::StoreU(hn::BitCast(four, hn::InterleaveLower(pairs, ab, cd)), four, out + lane);
      hn::StoreU(hn::BitCast(four, hn::InterleaveUpper(pairs, ab, cd)), four, out + W + lane);
      hn::StoreU(hn::BitCast(four, hn::InterleaveLower(pairs, ef, gh)), four, out + 2 * W + lane);
      hn::StoreU(hn::BitCast(four, hn::InterleaveUpper(pairs, ef, gh)), four, out + 3 * W + lane);
    }
    if constexpr (W % 4 == 2) {
      const auto a = loadColumns<format>(four, x, (W - 2) * stride + k),
                 b = loadColumns<format>(four, x, (W - 1) * stride + k);
      const auto low = hn::InterleaveLower(four, a, b), high = hn::InterleaveUpper(four, a, b);
      hn::StoreU(hn::LowerHalf(two, low), two, out + W - 2);
      hn::StoreU(hn::UpperHalf(two, low), two, out + 2 * W - 2);
      hn::StoreU(hn::LowerHalf(two, high), two, out + 3 * W - 2);
      hn::StoreU(hn::UpperHalf(two, high), two, out + 4 * W - 2);
    }
  }
  if (k < depth) packPart<W, format>(x + k, {nullptr, stride, 1}, W, depth - k, out);
}

/// Packs lanes [firstLane, firstLane + count) and depths [firstDepth, firstDepth + depth) into panels of W lanes.
template <int W, RowFormat format>
void packFormat(PanelSource s, int64_t firstLane, int64_t count, int64_t firstDepth, int64_t depth, float* out) {
  constexpr int64_t together = 8;  // panels read side by side
  const auto* x = static_cast<const StoredAs<format>*>(s.data) + firstLane * s.laneStride + firstDepth * s.depthStride;
  for (int64_t panels; count > 0; count -= panels * W, x += panels * W * s.laneStride, out += panels * W * depth) {
    panels = s.laneStride == 1 ? std::clamp<int64_t>(count / W, 1, together) : 1;
    if (count < W) packPart<W, format>(x, s, count, depth, out);
    else if (s.laneStride == 1) packRows<W, format>(x, s.depthStride, panels, depth, out);
    else packColumns<W, format>(x, s.laneStride, depth, out);
  }
}

template <int W>
void pack(RowFormat format, PanelSource s, int64_t firstLane, int64_t count, int64_t firstDepth, int64_t depth,
          float* out) {
  const auto to = format == RowFormat::float32    ? packFormat<W, RowFormat::float32>
                  : format == RowFormat::bfloat16 ? packFormat<W, RowFormat::bfloat16>
                                                  : packFormat<W, RowFormat::float16>;
  to(s, firstLane, count, firstDepth, depth, out);
}

/// c = alpha sums + beta c over a whole tile; c is not read when beta is 0.
template <int V, int R>
HWY_INLINE void storeWhole(const Floats (&sums)[R][V], float alpha, float beta, float* c, int64_t stride) {
  const FloatTag d;
  const Floats factor = hn::Set(d, alpha), kept = hn::Set(d, beta);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      float* at = c + r * stride + v * lanes;
      Floats x = hn::Mul(sums[r][v], factor);
      if (beta != 0) x = hn::MulAdd(hn::LoadU(d, at), kept, x);
      hn::StoreU(x, d, at);
    }
  }
}

/// The same over its first `rows` rows and `cols` columns, with the same operations.
template <int V, int R>
HWY_NOINLINE void storePart(const Floats (&sums)[R][V], float alpha, float beta, float* c, int64_t stride, int64_t rows,
                            int64_t cols) {
  constexpr int64_t W = V * lanes;
  HWY_ALIGN float part[R * W] = {};
  for (int64_t r = 0; r < rows && beta != 0; ++r) std::copy_n(c + r * stride, cols, part + r * W);
  storeWhole<V, R>(sums, alpha, beta, part, W);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(part + r * W, cols, c + r * stride);
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
