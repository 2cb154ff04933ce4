// Thin QR by Householder reflections. Small matrices lie one in each lane (lanes-inl.h); others go to Eigen.
#include "cpu/kernels/guard.h"
#include "cpu/kernels/linalg_batch.h"
#include "cpu/kernels/linalg_eigen.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/qr.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// c -= tau v (vᵀ c) for S columns; v is 1, then `rows` - 1 elements below; v and c have their own distance of rows.
template <int S, class T>
HWY_INLINE void reflect(const T* v, int64_t ldv, LaneVec<T> tau, T* c, int64_t ldc, int64_t rows) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  LaneVec<T> w[S];
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) w[s] = hn::Load(d, c + s * N);
  for (int64_t i = 1; i < rows; ++i) {
    const LaneVec<T> x = hn::Load(d, v + i * ldv * N);
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) w[s] = hn::MulAdd(x, hn::Load(d, c + (i * ldc + s) * N), w[s]);
  }
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
    w[s] = hn::Mul(w[s], tau);
    hn::Store(hn::Sub(hn::Load(d, c + s * N), w[s]), d, c + s * N);
  }
  for (int64_t i = 1; i < rows; ++i) {
    const LaneVec<T> x = hn::Load(d, v + i * ldv * N);
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      T* at = c + (i * ldc + s) * N;
      hn::Store(hn::NegMulAdd(x, w[s], hn::Load(d, at)), d, at);
    }
  }
}

template <class T>
HWY_INLINE void reflectColumns(const T* v, int64_t ldv, LaneVec<T> tau, T* c, int64_t ldc, int64_t rows, int64_t cols) {
  for (int64_t j = 0; j < cols; j += 4) {
    withWidth<4>(cols - j, [&](auto s) HWY_ATTR { reflect<s(), T>(v, ldv, tau, c + j * laneCount<T>, ldc, rows); });
  }
}

/// Makes the reflection that takes the column c [rows] to a multiple of the first unit vector: that multiple goes to
/// c[0], the rest of v, whose first element is 1, below it. Gives tau; 0 where nothing is to be done.
template <class T>
HWY_INLINE LaneVec<T> makeReflection(T* c, int64_t ld, int64_t rows) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  LaneVec<T> below = hn::Zero(d);
  for (int64_t i = 1; i < rows; ++i) {
    const LaneVec<T> x = hn::Load(d, c + i * ld * N);
    below = hn::MulAdd(x, x, below);
  }
  const LaneVec<T> first = hn::Load(d, c), zero = hn::Zero(d), one = hn::Set(d, T{1});
  const auto nothing = hn::Eq(below, zero);
  const LaneVec<T> norm = hn::Sqrt(hn::MulAdd(first, first, below));
  const LaneVec<T> image = hn::IfThenElse(nothing, first, hn::IfThenElse(hn::Lt(first, zero), norm, hn::Neg(norm)));
  const LaneVec<T> inverse = hn::Div(one, hn::IfThenElse(nothing, one, hn::Sub(first, image)));
  const LaneVec<T> tau = hn::IfThenElse(nothing, zero, hn::Div(hn::Sub(image, first), image));
  hn::Store(image, d, c);
  for (int64_t i = 1; i < rows; ++i) {
    T* at = c + i * ld * N;
    hn::Store(hn::Mul(hn::Load(d, at), inverse), d, at);
  }
  return tau;
}

template <class T>
void qrLanes(const Exec& exec, const QrArgs& args) {
  constexpr LaneTag<T> d{};
  constexpr int64_t N = laneCount<T>;
  const int64_t rows = args.m, n = args.n, k = std::min(rows, n), ld = n | 1, ldq = k | 1;
  SlotMemory<T> memory((rows * ld + rows * ldq + k + 2) * N);
  forEachGroup(exec, args.batch, N, 4 * rows * n * k, [&](int64_t first, int64_t matrices, int slot) {
    T *a = memory.of(slot), *q = a + rows * ld * N, *taus = q + rows * ldq * N, *scale = taus + k * N, *bad = scale + N;
    const T* in = static_cast<const T*>(args.a) + first * rows * n;
    T *outQ = static_cast<T*>(args.q) + first * rows * k, *outR = static_cast<T*>(args.r) + first * k * n;
    for (int64_t i = 0; i < rows; ++i) {
      interleave(in + i * n, rows * n, matrices, n, a + i * ld * N);
      for (int64_t j = n; j < ld; ++j) hn::Store(hn::Zero(d), d, a + (i * ld + j) * N);
    }
    hn::Store(notFiniteLanes(a, rows * ld), d, bad);
    scaleLanes(a, rows * ld, scale);
    for (int64_t j = 0; j < k; ++j) {
      T* column = a + (j * ld + j) * N;
      const LaneVec<T> tau = makeReflection(column, ld, rows - j);
      hn::Store(tau, d, taus + j * N);
      reflectColumns(column, ld, tau, column + N, ld, rows - j, n - j - 1);
    }
    for (int64_t i = 0; i < rows * ldq; ++i) hn::Store(hn::Zero(d), d, q + i * N);
    for (int64_t j = k - 1; j >= 0; --j) {
      T* corner = q + (j * ldq + j) * N;
      hn::Store(hn::Set(d, T{1}), d, corner);
      reflectColumns(a + (j * ld + j) * N, ld, hn::Load(d, taus + j * N), corner, ldq, rows - j, k - j);
    }
    const LaneVec<T> back = hn::Div(hn::Set(d, T{1}), hn::Load(d, scale));
    for (int64_t i = 0; i < rows; ++i) deinterleave(q + i * ldq * N, k, outQ + i * k, rows * k, matrices);
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        T* at = a + (i * ld + j) * N;
        hn::Store(j < i ? hn::Zero(d) : hn::Mul(hn::Load(d, at), back), d, at);
      }
      deinterleave(a + i * ld * N, n, outR + i * n, k * n, matrices);
    }
    for (int64_t m = 0; m < matrices; ++m) {
      const bool fails = bad[m] != 0 || !allFinite(outR + m * k * n, k * n);
      args.status[first + m] = fails ? notFinite : solved;
      if (!fails) continue;
      fillNan(outQ + m * rows * k, rows * k);
      fillNan(outR + m * k * n, k * n);
    }
  });
}

template <class T>
void qrLarge(const Exec& exec, const QrArgs& args) {
  const int64_t rows = args.m, n = args.n, k = std::min(rows, n);
  parallelFor(args.batch, 1, exec, [&](int64_t m, int64_t, int) {
    T *q = static_cast<T*>(args.q) + m * rows * k, *r = static_cast<T*>(args.r) + m * k * n;
    args.status[m] = EigenLinalg<T>::qr(static_cast<const T*>(args.a) + m * rows * n, rows, n, q, r);
    if (args.status[m] == solved) return;
    fillNan(q, rows * k);
    fillNan(r, k * n);
  });
}

template <class T>
void qrOf(const Exec& exec, const QrArgs& a) {
  a.m <= mostLaneRows&& a.n <= mostLaneRows ? qrLanes<T>(exec, a) : qrLarge<T>(exec, a);
}

}  // namespace

Status qr(const Exec& exec, const QrArgs& a) {
  return guard([&] { a.precision == Precision::float32 ? qrOf<float>(exec, a) : qrOf<double>(exec, a); });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
