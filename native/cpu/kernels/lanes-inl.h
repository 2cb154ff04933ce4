// Small matrices, one in each lane of a vector: N matrices (N: lanes) are interleaved so that element e of matrix l
// lies at [e * N + l]. Every operation is then one vector operation for N matrices, without shuffles, and what happens
// in a lane depends on its own matrix alone. Strides of interleaved matrices count vectors. For the target being
// compiled.
#if defined(TOPKNOT_LANES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_LANES_INL_H
#undef TOPKNOT_LANES_INL_H
#else
#define TOPKNOT_LANES_INL_H
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <type_traits>

#include "cpu/kernels/linalg_batch.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using LaneTag = hn::ScalableTag<T>;
template <class T>
using LaneVec = hn::Vec<LaneTag<T>>;
template <class T>
inline constexpr int64_t laneCount = HWY_MAX_BYTES / sizeof(T);  // fixed on every target of the CPU backend

/// 4 x 4 floats, or 2 x 2 doubles, in 128-bit vectors.
template <class T, class Vec>
HWY_INLINE void transposeBlock(Vec* v) {
  if constexpr (sizeof(T) == 4) {
    const hn::FixedTag<T, 4> q;
    const hn::FixedTag<double, 2> wide;
    const auto ab = hn::BitCast(wide, hn::InterleaveLower(q, v[0], v[1]));
    const auto AB = hn::BitCast(wide, hn::InterleaveUpper(q, v[0], v[1]));
    const auto ce = hn::BitCast(wide, hn::InterleaveLower(q, v[2], v[3]));
    const auto CE = hn::BitCast(wide, hn::InterleaveUpper(q, v[2], v[3]));
    v[0] = hn::BitCast(q, hn::InterleaveLower(wide, ab, ce));
    v[1] = hn::BitCast(q, hn::InterleaveUpper(wide, ab, ce));
    v[2] = hn::BitCast(q, hn::InterleaveLower(wide, AB, CE));
    v[3] = hn::BitCast(q, hn::InterleaveUpper(wide, AB, CE));
  } else {
    const hn::FixedTag<T, 2> q;
    const auto low = hn::InterleaveLower(q, v[0], v[1]);
    v[1] = hn::InterleaveUpper(q, v[0], v[1]);
    v[0] = low;
  }
}

/// Interleaves `count` elements of each of `matrices` <= N matrices, which lie `stride` elements apart. Lanes without a
/// matrix repeat the last one.
template <class T>
HWY_INLINE void interleave(const T* first, int64_t stride, int64_t matrices, int64_t count, T* out) {
  constexpr int64_t N = laneCount<T>, Q = 16 / sizeof(T);
  const hn::FixedTag<T, Q> q;
  for (int64_t l = 0; l < N; l += Q) {
    const T* m[Q];
    for (int64_t r = 0; r < Q; ++r) m[r] = first + (l + r < matrices ? l + r : matrices - 1) * stride;
    T* to = out + l;
    int64_t e = 0;
    for (; e + Q <= count; e += Q) {
      hn::Vec<decltype(q)> v[Q];
#pragma GCC unroll 4
      for (int64_t r = 0; r < Q; ++r) v[r] = hn::LoadU(q, m[r] + e);
      transposeBlock<T>(v);
#pragma GCC unroll 4
      for (int64_t r = 0; r < Q; ++r) hn::Store(v[r], q, to + (e + r) * N);
    }
    for (; e < count; ++e) {
      for (int64_t r = 0; r < Q; ++r) to[e * N + r] = m[r][e];
    }
  }
}

/// The way back, for the lanes that have a matrix.
template <class T>
HWY_INLINE void deinterleave(const T* in, int64_t count, T* first, int64_t stride, int64_t matrices) {
  constexpr int64_t N = laneCount<T>, Q = 16 / sizeof(T);
  const hn::FixedTag<T, Q> q;
  for (int64_t l = 0; l < matrices; l += Q) {
    const T* from = in + l;
    const int64_t lanes = matrices - l < Q ? matrices - l : Q;
    int64_t e = 0;
    for (; lanes == Q && e + Q <= count; e += Q) {
      hn::Vec<decltype(q)> v[Q];
#pragma GCC unroll 4
      for (int64_t r = 0; r < Q; ++r) v[r] = hn::Load(q, from + (e + r) * N);
      transposeBlock<T>(v);
#pragma GCC unroll 4
      for (int64_t r = 0; r < Q; ++r) hn::StoreU(v[r], q, first + (l + r) * stride + e);
    }
    for (; e < count; ++e) {
      for (int64_t r = 0; r < lanes; ++r) first[(l + r) * stride + e] = from[e * N + r];
    }
  }
}

/// The lanes in which one of `count` vectors is not finite get NaN, the others 0.
template <class T>
LaneVec<T> notFiniteLanes(const T* x, int64_t count) {
  constexpr LaneTag<T> d{};
  LaneVec<T> zero = hn::Zero(d);
  for (int64_t i = 0; i < count; ++i) zero = hn::MulAdd(hn::Load(d, x + i * laneCount<T>), hn::Zero(d), zero);
  return zero;
}

/// Multiplies the `count` elements of each matrix by a power of two, scale[lane], that brings the largest to about 1:
/// their squares then neither overflow nor vanish where they matter.
template <class T>
HWY_INLINE void scaleLanes(T* x, int64_t count, T* scale) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  LaneVec<T> largest = hn::Zero(d);
  for (int64_t i = 0; i < count; ++i) largest = hn::Max(largest, hn::Abs(hn::Load(d, x + i * N)));
  hn::Store(largest, d, scale);
  for (int64_t l = 0; l < N; ++l) scale[l] = scaleFor(scale[l]);
  const LaneVec<T> by = hn::Load(d, scale);
  for (int64_t i = 0; i < count; ++i) hn::Store(hn::Mul(hn::Load(d, x + i * N), by), d, x + i * N);
}

/// acc[r][s] -= Σ_k a[r][k] b[k][s], k < depth, all of it in registers but a and b.
template <int R, int S, class T>
HWY_INLINE void subtractProduct(LaneVec<T> (&acc)[R][S], const T* a, int64_t ar, int64_t ak, const T* b, int64_t bk,
                                int64_t bs, int64_t depth) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  for (int64_t k = 0; k < depth; ++k, a += ak * N, b += bk * N) {
    LaneVec<T> y[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) y[s] = hn::Load(d, b + s * bs * N);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const LaneVec<T> x = hn::Load(d, a + r * ar * N);
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) acc[r][s] = hn::NegMulAdd(x, y[s], acc[r][s]);
    }
  }
}

/// A square triangular matrix: element (i, j) is at data[i * row + j * col], and the inverses of its diagonal elements
/// stand apart.
template <class T>
struct Triangle {
  const T* data;
  int64_t row, col;
  const T* inverse;

  const T* at(int64_t i, int64_t j) const { return data + (i * row + j * col) * laneCount<T>; }
  LaneVec<T> get(int64_t i, int64_t j) const { return hn::Load(LaneTag<T>{}, at(i, j)); }
  LaneVec<T> inverted(int64_t i) const { return hn::Load(LaneTag<T>{}, inverse + i * laneCount<T>); }
};

/// Vectors to be solved for, in place: element i of vector r is at data[r * row + i * col].
template <class T>
struct Vectors {
  T* data;
  int64_t row, col;

  T* at(int64_t r, int64_t i) const { return data + (r * row + i * col) * laneCount<T>; }
};

/// Elements [j, j + S) of R vectors x of L x = b, once those before are known.
template <int R, int S, class T>
HWY_INLINE void forwardTile(const Triangle<T>& l, const Vectors<T>& x, int64_t r0, int64_t j) {
  constexpr LaneTag<T> d{};
  LaneVec<T> acc[R][S];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) acc[r][s] = hn::Load(d, x.at(r0 + r, j + s));
  }
  subtractProduct<R, S, T>(acc, x.at(r0, 0), x.row, x.col, l.at(j, 0), l.col, l.row, j);
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < s; ++t) acc[r][s] = hn::NegMulAdd(acc[r][t], l.get(j + s, j + t), acc[r][s]);
      acc[r][s] = hn::Mul(acc[r][s], l.inverted(j + s));
      hn::Store(acc[r][s], d, x.at(r0 + r, j + s));
    }
  }
}

/// Elements [j, j + S) of R vectors x of U x = b, once those behind are known.
template <int R, int S, class T>
HWY_INLINE void backwardTile(const Triangle<T>& u, int64_t n, const Vectors<T>& x, int64_t r0, int64_t j) {
  constexpr LaneTag<T> d{};
  LaneVec<T> acc[R][S];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) acc[r][s] = hn::Load(d, x.at(r0 + r, j + s));
  }
  subtractProduct<R, S, T>(acc, x.at(r0, j + S), x.row, x.col, u.at(j, j + S), u.col, u.row, n - j - S);
#pragma GCC unroll 4
  for (int s = S - 1; s >= 0; --s) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int t = s + 1; t < S; ++t) acc[r][s] = hn::NegMulAdd(acc[r][t], u.get(j + s, j + t), acc[r][s]);
      acc[r][s] = hn::Mul(acc[r][s], u.inverted(j + s));
      hn::Store(acc[r][s], d, x.at(r0 + r, j + s));
    }
  }
}

/// A tile is tileRows x tileCols accumulators, with the operands all that 16 registers hold.
inline constexpr int tileRows = 4, tileCols = 3;

/// Calls f(integral_constant) with the width of what is left, at most `most`.
template <int most, class F>
HWY_INLINE void withWidth(int64_t left, F&& f) {
  if constexpr (most > 1) {
    if (left < most) return withWidth<most - 1>(left, f);
  }
  f(std::integral_constant<int, most>{});
}

/// Elements [j, j + S) of the vectors r0 to `vectors`.
template <int S, class T>
HWY_INLINE void forwardColumns(const Triangle<T>& l, const Vectors<T>& x, int64_t r0, int64_t vectors, int64_t j) {
  for (; r0 < vectors; r0 += tileRows) {
    withWidth<tileRows>(vectors - r0, [&](auto r) HWY_ATTR { forwardTile<r(), S, T>(l, x, r0, j); });
  }
}

/// L x = b for each of the vectors.
template <class T>
HWY_INLINE void solveLower(const Triangle<T>& l, int64_t n, const Vectors<T>& x, int64_t vectors) {
  for (int64_t j = 0; j < n; j += tileCols) {
    withWidth<tileCols>(n - j, [&](auto s) HWY_ATTR { forwardColumns<s(), T>(l, x, 0, vectors, j); });
  }
}

/// U x = b for each of the vectors.
template <class T>
HWY_INLINE void solveUpper(const Triangle<T>& u, int64_t n, const Vectors<T>& x, int64_t vectors) {
  for (int64_t j = (n + tileCols - 1) / tileCols * tileCols - tileCols; j >= 0; j -= tileCols) {
    withWidth<tileCols>(n - j, [&](auto s) HWY_ATTR {
      for (int64_t r0 = 0; r0 < vectors; r0 += tileRows) {
        withWidth<tileRows>(vectors - r0, [&](auto r) HWY_ATTR { backwardTile<r(), s(), T>(u, n, x, r0, j); });
      }
    });
  }
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
