// Systems solved by LU with partial pivoting. Small matrices lie one in each lane (lanes-inl.h), with their right-hand
// sides as further columns; others go to Eigen.
#include "cpu/kernels/guard.h"
#include "cpu/kernels/linalg_batch.h"
#include "cpu/kernels/linalg_eigen.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/lu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// N systems [n, n | rhs], rows `ld` vectors apart, in the working memory of a thread.
template <class T>
struct Systems {
  static constexpr int64_t N = laneCount<T>;
  T *data, *inverse, *ones;
  int64_t n, rhs, ld;

  static int64_t memory(int64_t n, int64_t rhs) { return (n * ((n + rhs) | 1) + 2 * n + 3) * N; }
  Systems(T* at, int64_t rows, int64_t columns) : n(rows), rhs(columns), ld((rows + columns) | 1) {
    data = at;
    inverse = data + n * ld * N;
    ones = inverse + n * N;
    for (int64_t i = 0; i < n * N; ++i) ones[i] = T{1};
  }
  T* at(int64_t i, int64_t j) const { return data + (i * ld + j) * N; }
  T* scratch() const { return ones + n * N; }  // [3 vectors]
  Triangle<T> lower() const { return {data, ld, 1, ones}; }
  Triangle<T> upper() const { return {data, ld, 1, inverse}; }
  Vectors<T> columns(int64_t j) const { return {at(0, j), 1, ld}; }
};

/// Columns [j, j + S) of the rows i, once the columns before are factorised.
template <int R, int S, class T>
HWY_INLINE void updateTile(const Systems<T>& a, int64_t i, int64_t j) {
  constexpr LaneTag<T> d{};
  LaneVec<T> acc[R][S];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) acc[r][s] = hn::Load(d, a.at(i + r, j + s));
  }
  subtractProduct<R, S, T>(acc, a.at(i, 0), a.ld, 1, a.at(0, j), a.ld, 1, j);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) hn::Store(acc[r][s], d, a.at(i + r, j + s));
  }
}

/// Exchanges row k with the row of the largest element below or at it in column k, in each lane for itself.
template <class T>
HWY_INLINE void pivotRow(const Systems<T>& a, int64_t k) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  LaneVec<T> largest = hn::Abs(hn::Load(d, a.at(k, k))), row = hn::Set(d, static_cast<T>(k));
  for (int64_t i = k + 1; i < a.n; ++i) {
    const LaneVec<T> size = hn::Abs(hn::Load(d, a.at(i, k)));
    row = hn::IfThenElse(hn::Gt(size, largest), hn::Set(d, static_cast<T>(i)), row);
    largest = hn::Max(size, largest);
  }
  T* rows = a.scratch();
  hn::Store(row, d, rows);
  for (int64_t l = 0; l < N; ++l) {
    const int64_t from = static_cast<int64_t>(rows[l]);
    if (from == k) continue;
    T *x = a.at(k, 0) + l, *y = a.at(from, 0) + l;
    for (int64_t c = 0; c < (a.n + a.rhs) * N; c += N) {
      const T kept = x[c];
      x[c] = y[c];
      y[c] = kept;
    }
  }
}

/// Factorises, left-looking, and solves in place. Gives the first pivot that is zero, counted from 1, or 0, in each
/// lane.
template <class T>
LaneVec<T> solveLanes(const Systems<T>& a) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  LaneVec<T> failed = hn::Zero(d);
  for (int64_t j = 0; j < a.n; j += tileCols) {
    const int64_t last = std::min(j + tileCols, a.n);
    solveLower(a.lower(), j, a.columns(j), last - j);
    withWidth<tileCols>(a.n - j, [&](auto s) HWY_ATTR {
      for (int64_t i = j; i < a.n; i += tileRows) {
        withWidth<tileRows>(a.n - i, [&](auto r) HWY_ATTR { updateTile<r(), s(), T>(a, i, j); });
      }
    });
    for (int64_t k = j; k < last; ++k) {
      pivotRow(a, k);
      const LaneVec<T> pivot = hn::Load(d, a.at(k, k));
      const auto zero = hn::And(hn::Eq(pivot, hn::Zero(d)), hn::Eq(failed, hn::Zero(d)));
      failed = hn::IfThenElse(zero, hn::Set(d, static_cast<T>(k + 1)), failed);
      const LaneVec<T> inv = hn::Div(hn::Set(d, T{1}), pivot);
      hn::Store(inv, d, a.inverse + k * N);
      for (int64_t i = k + 1; i < a.n; ++i) {
        const LaneVec<T> x = hn::Mul(hn::Load(d, a.at(i, k)), inv);
        hn::Store(x, d, a.at(i, k));
        for (int64_t c = k + 1; c < last; ++c) {
          hn::Store(hn::NegMulAdd(x, hn::Load(d, a.at(k, c)), hn::Load(d, a.at(i, c))), d, a.at(i, c));
        }
      }
    }
  }
  solveLower(a.lower(), a.n, a.columns(a.n), a.rhs);
  solveUpper(a.upper(), a.n, a.columns(a.n), a.rhs);
  return failed;
}

template <class T>
void luLanes(const Exec& exec, const LuSolveArgs& args) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  const int64_t n = args.n, rhs = args.rhs;
  SlotMemory<T> memory(Systems<T>::memory(n, rhs));
  forEachGroup(exec, args.batch, N, 2 * n * n * (n / 3 + rhs), [&](int64_t first, int64_t matrices, int slot) {
    const Systems<T> systems(memory.of(slot), n, rhs);
    const T* in = static_cast<const T*>(args.a) + first * n * n;
    const T* b = static_cast<const T*>(args.b) + first * n * rhs;
    T* out = static_cast<T*>(args.x) + first * n * rhs;
    LaneVec<T> bad = hn::Zero(d);
    for (int64_t i = 0; i < n; ++i) {
      interleave(in + i * n, n * n, matrices, n, systems.at(i, 0));
      interleave(b + i * rhs, n * rhs, matrices, rhs, systems.at(i, n));
      bad = hn::Add(bad, notFiniteLanes(systems.at(i, 0), n + rhs));
    }
    const LaneVec<T> failed = solveLanes(systems);
    LaneVec<T> overflow = hn::Zero(d);
    for (int64_t i = 0; i < n; ++i) {
      overflow = hn::Add(overflow, notFiniteLanes(systems.at(i, n), rhs));
      deinterleave(systems.at(i, n), rhs, out + i * rhs, n * rhs, matrices);
    }
    T* lanes = systems.scratch();
    hn::Store(failed, d, lanes);
    hn::Store(bad, d, lanes + N);
    hn::Store(overflow, d, lanes + 2 * N);
    for (int64_t m = 0; m < matrices; ++m) {
      int32_t& status = args.status[first + m] = static_cast<int32_t>(lanes[m]);
      if (lanes[N + m] != 0 || (status == solved && lanes[2 * N + m] != 0)) status = notFinite;
      if (status != solved) fillNan(out + m * n * rhs, n * rhs);
    }
  });
}

template <class T>
void luLarge(const Exec& exec, const LuSolveArgs& args) {
  const int64_t n = args.n, rhs = args.rhs;
  parallelFor(args.batch, 1, exec, [&](int64_t m, int64_t, int) {
    T* x = static_cast<T*>(args.x) + m * n * rhs;
    args.status[m] = EigenLinalg<T>::luSolve(static_cast<const T*>(args.a) + m * n * n, n,
                                             static_cast<const T*>(args.b) + m * n * rhs, rhs, x);
    if (args.status[m] != solved) fillNan(x, n * rhs);
  });
}

template <class T>
void luOf(const Exec& exec, const LuSolveArgs& a) {
  a.n <= mostLaneRows&& a.rhs <= mostLaneColumns ? luLanes<T>(exec, a) : luLarge<T>(exec, a);
}

}  // namespace

Status luSolve(const Exec& exec, const LuSolveArgs& a) {
  return guard([&] { a.precision == Precision::float32 ? luOf<float>(exec, a) : luOf<double>(exec, a); });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
