// Cholesky factors and solutions of many systems. Small matrices lie one in each lane (lanes-inl.h); others go to
// Eigen.
#include "cpu/kernels/guard.h"
#include "cpu/kernels/linalg_batch.h"
#include "cpu/kernels/linalg_eigen.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/cholesky.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// S columns of the factor within their own rows. `failed` gets the number of the first pivot that is not positive and
/// finite, counted from 1, in the lanes where it is still 0.
template <int S, class T>
HWY_INLINE void factorDiagonal(const Triangle<T>& l, T* data, T* inverse, int64_t j, LaneVec<T>& failed) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  const Vectors<T> rows{data, l.row, l.col};
  LaneVec<T> acc[S][S];
#pragma GCC unroll 4
  for (int r = 0; r < S; ++r) {
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) acc[r][s] = hn::Load(d, l.at(j + r, j + s));
  }
  subtractProduct<S, S, T>(acc, l.at(j, 0), l.row, l.col, l.at(j, 0), l.col, l.row, j);
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
    const LaneVec<T> pivot = acc[s][s];
    const auto good = hn::And(hn::Gt(pivot, hn::Zero(d)), hn::Le(pivot, hn::Set(d, std::numeric_limits<T>::max())));
    const auto first = hn::AndNot(good, hn::Eq(failed, hn::Zero(d)));
    failed = hn::IfThenElse(first, hn::Set(d, static_cast<T>(j + s + 1)), failed);
    const LaneVec<T> root = hn::Sqrt(pivot), inv = hn::Div(hn::Set(d, T{1}), root);
    hn::Store(root, d, rows.at(j + s, j + s));
    hn::Store(inv, d, inverse + (j + s) * N);
#pragma GCC unroll 4
    for (int r = s + 1; r < S; ++r) {
      acc[r][s] = hn::Mul(acc[r][s], inv);
      hn::Store(acc[r][s], d, rows.at(j + r, j + s));
#pragma GCC unroll 4
      for (int t = s + 1; t <= r; ++t) acc[r][t] = hn::NegMulAdd(acc[r][s], acc[t][s], acc[r][t]);
    }
  }
}

/// The factors of N matrices [n, n] with rows `ld` apart, in place, left-looking; only their lower triangles are used.
/// The inverses of the diagonal go to `inverse` [n].
template <class T>
LaneVec<T> factorLanes(T* a, int64_t ld, int64_t n, T* inverse) {
  const Triangle<T> l{a, ld, 1, inverse};
  LaneVec<T> failed = hn::Zero(LaneTag<T>{});
  for (int64_t j = 0; j < n; j += tileCols) {
    withWidth<tileCols>(n - j, [&](auto s) HWY_ATTR {
      factorDiagonal<s(), T>(l, a, inverse, j, failed);
      forwardColumns<s(), T>(l, Vectors<T>{a, ld, 1}, j + s(), n, j);
    });
  }
  return failed;
}

/// Interleaves the lower triangles of matrices [n, n].
template <class T>
void interleaveLower(const T* a, int64_t n, int64_t matrices, T* out, int64_t ld) {
  constexpr int64_t Q = 16 / sizeof(T);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t count = std::min((i + Q) / Q * Q, n);  // whole vectors where the row has them
    interleave(a + i * n, n * n, matrices, count, out + i * ld * laneCount<T>);
  }
}

/// Rows of an odd number of vectors: an even one would take up few of a cache's sets.
inline int64_t rowStride(int64_t n) { return n | 1; }

template <class T>
void choleskyLanes(const Exec& exec, const CholeskyArgs& args) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  const int64_t n = args.n, ld = rowStride(n);
  SlotMemory<T> memory((n * ld + n + 1) * N);
  forEachGroup(exec, args.batch, N, n * n * n / 3, [&](int64_t first, int64_t matrices, int slot) {
    T *a = memory.of(slot), *inverse = a + n * ld * N, *lanes = inverse + n * N;
    const T* in = static_cast<const T*>(args.a) + first * n * n;
    T* out = static_cast<T*>(args.factor) + first * n * n;
    interleaveLower(in, n, matrices, a, ld);
    hn::Store(factorLanes(a, ld, n, inverse), d, lanes);
    for (int64_t m = 0; m < matrices; ++m) {
      int32_t& status = args.status[first + m] = static_cast<int32_t>(lanes[m]);
      if (status != solved && !lowerFinite(in + m * n * n, n)) status = notFinite;
    }
    for (int64_t i = 0; i < n; ++i) {
      deinterleave(a + i * ld * N, i + 1, out + i * n, n * n, matrices);
      for (int64_t m = 0; m < matrices; ++m) std::fill_n(out + m * n * n + i * n + i + 1, n - i - 1, T{0});
    }
    for (int64_t m = 0; m < matrices; ++m) {
      if (args.status[first + m] != solved) fillNan(out + m * n * n, n * n);
    }
  });
}

template <class T>
void choleskySolveLanes(const Exec& exec, const CholeskySolveArgs& args) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  const int64_t n = args.n, rhs = args.rhs, ld = rowStride(n);
  SlotMemory<T> memory((n * ld + n + n * rhs + 2) * N);
  forEachGroup(exec, args.batch, N, n * n * n / 3 + 2 * n * n * rhs, [&](int64_t first, int64_t matrices, int slot) {
    T *a = memory.of(slot), *inverse = a + n * ld * N, *x = inverse + n * N, *lanes = x + n * rhs * N;
    const T* in = static_cast<const T*>(args.a) + first * n * n;
    T* out = static_cast<T*>(args.x) + first * n * rhs;
    interleaveLower(in, n, matrices, a, ld);
    interleave(static_cast<const T*>(args.b) + first * n * rhs, n * rhs, matrices, n * rhs, x);
    hn::Store(hn::Zero(d), d, lanes);
    if (args.factored) {
      for (int64_t i = 0; i < n; ++i) {
        hn::Store(hn::Div(hn::Set(d, T{1}), hn::Load(d, a + (i * ld + i) * N)), d, inverse + i * N);
      }
    } else {
      hn::Store(factorLanes(a, ld, n, inverse), d, lanes);
    }
    const Vectors<T> vectors{x, 1, rhs};
    solveLower(Triangle<T>{a, ld, 1, inverse}, n, vectors, rhs);
    solveUpper(Triangle<T>{a, 1, ld, inverse}, n, vectors, rhs);
    hn::Store(notFiniteLanes(x, n * rhs), d, lanes + N);
    deinterleave(x, n * rhs, out, n * rhs, matrices);
    for (int64_t m = 0; m < matrices; ++m) {
      int32_t& status = args.status[first + m] = static_cast<int32_t>(lanes[m]);
      if (status != solved ? !lowerFinite(in + m * n * n, n) : lanes[N + m] != 0) status = notFinite;
      if (status != solved) fillNan(out + m * n * rhs, n * rhs);
    }
  });
}

template <class T>
void choleskyLarge(const Exec& exec, const CholeskyArgs& args) {
  parallelFor(args.batch, 1, exec, [&](int64_t m, int64_t, int) {
    T* factor = static_cast<T*>(args.factor) + m * args.n * args.n;
    args.status[m] = EigenLinalg<T>::cholesky(static_cast<const T*>(args.a) + m * args.n * args.n, args.n, factor);
    if (args.status[m] != solved) fillNan(factor, args.n * args.n);
  });
}

template <class T>
void choleskySolveLarge(const Exec& exec, const CholeskySolveArgs& args) {
  const int64_t n = args.n, rhs = args.rhs;
  SlotMemory<T> memory(args.factored ? 0 : n * n);
  parallelFor(args.batch, 1, exec, [&](int64_t m, int64_t, int slot) {
    const T* factor = static_cast<const T*>(args.a) + m * n * n;
    T* x = static_cast<T*>(args.x) + m * n * rhs;
    int32_t& status = args.status[m] = solved;
    if (!args.factored) {
      status = EigenLinalg<T>::cholesky(factor, n, memory.of(slot));
      factor = memory.of(slot);
    }
    if (status == solved) {
      EigenLinalg<T>::choleskySolve(factor, n, static_cast<const T*>(args.b) + m * n * rhs, rhs, x);
      if (!allFinite(x, n * rhs)) status = notFinite;
    }
    if (status != solved) fillNan(x, n * rhs);
  });
}

}  // namespace

Status cholesky(const Exec& exec, const CholeskyArgs& a) {
  return guard([&] {
    const bool lanes = a.n <= mostLaneRows;
    if (a.precision == Precision::float32) lanes ? choleskyLanes<float>(exec, a) : choleskyLarge<float>(exec, a);
    else lanes ? choleskyLanes<double>(exec, a) : choleskyLarge<double>(exec, a);
  });
}

Status choleskySolve(const Exec& exec, const CholeskySolveArgs& a) {
  return guard([&] {
    const bool lanes = a.n <= mostLaneRows && a.rhs <= mostLaneColumns;
    if (a.precision == Precision::float32)
      lanes ? choleskySolveLanes<float>(exec, a) : choleskySolveLarge<float>(exec, a);
    else lanes ? choleskySolveLanes<double>(exec, a) : choleskySolveLarge<double>(exec, a);
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
