// Dense float32 pieces of ALS on matrices that fit in the caches, for the target being compiled.
//
// A panel matrix keeps N columns (N: lanes of a vector) together: element (k, c) is at [c / N * stride + k * N + c %
// N]. So a register tile reads its operands front to back, whatever the number of columns.
#if defined(TOPKNOT_ALS_DENSE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_ALS_DENSE_INL_H
#undef TOPKNOT_ALS_DENSE_INL_H
#else
#define TOPKNOT_ALS_DENSE_INL_H
#endif

#include <hwy/highway.h>

#include <cmath>
#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr D d{};
constexpr int64_t N = HWY_MAX_BYTES / 4;  // fixed on every target that the CPU backend is built for

inline int64_t roundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// C[0..4, 0..NR vectors] += sign * Σ_k b[k]ᵀ p[k]; b: element (r, k) at b[r * br + k * bk].
template <int sign, int NR>
HWY_INLINE void tile(const float* b, int64_t br, int64_t bk, const float* p, int64_t stride, int64_t depth, float* c,
                     int64_t ldc) {
  V acc[4][NR];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 6
    for (int j = 0; j < NR; ++j) acc[r][j] = hn::LoadU(d, c + r * ldc + j * N);
  }
  for (int64_t k = 0; k < depth; ++k) {
    V x[NR];
#pragma GCC unroll 6
    for (int j = 0; j < NR; ++j) x[j] = hn::Load(d, p + j * stride + k * N);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const V s = hn::Set(d, b[r * br + k * bk]);
#pragma GCC unroll 6
      for (int j = 0; j < NR; ++j) {
        acc[r][j] = sign > 0 ? hn::MulAdd(s, x[j], acc[r][j]) : hn::NegMulAdd(s, x[j], acc[r][j]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 6
    for (int j = 0; j < NR; ++j) hn::StoreU(acc[r][j], d, c + r * ldc + j * N);
  }
}

/// Four rows of C += sign * b p over `panels` panels, in tiles that fill the registers.
template <int sign>
HWY_INLINE void tileRow(const float* b, int64_t br, int64_t bk, const float* p, int64_t stride, int64_t panels,
                        int64_t depth, float* c, int64_t ldc) {
  constexpr int widest = HWY_TARGET <= HWY_AVX3 ? 6 : HWY_TARGET == HWY_AVX2 ? 3 : 2;
  const auto step = [&](int64_t n) {
    p += n * stride;
    c += n * N;
    panels -= n;
  };
  while (panels >= widest + 2 || panels == widest) {
    tile<sign, widest>(b, br, bk, p, stride, depth, c, ldc);
    step(widest);
  }
  if constexpr (widest > 3) {
    while (panels >= 3 && panels != 4) {
      tile<sign, 3>(b, br, bk, p, stride, depth, c, ldc);
      step(3);
    }
  }
  while (panels >= 2) {
    tile<sign, 2>(b, br, bk, p, stride, depth, c, ldc);
    step(2);
  }
  if (panels == 1) tile<sign, 1>(b, br, bk, p, stride, depth, c, ldc);
}

/// Rows i..i+4 of the upper triangle of C += sign * PᵀP, P a panel matrix with `depth` rows and `panels` panels.
template <int sign>
HWY_INLINE void rankUpdate4(const float* p, int64_t stride, int64_t panels, int64_t depth, int64_t i, float* c,
                            int64_t ldc) {
  const int64_t first = i / N;
  tileRow<sign>(p + first * stride + i % N, 1, N, p + first * stride, stride, panels - first, depth,
                c + i * ldc + first * N, ldc);
}

/// `count` < N floats, then zeros.
HWY_INLINE V loadPart(const float* p, int64_t count) {
#if HWY_TARGET <= HWY_AVX2
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(count)), d, p);
#else  // a masked load would read the whole vector
  HWY_ALIGN float part[N] = {};
  for (int64_t i = 0; i < count; ++i) part[i] = p[i];
  return hn::Load(d, part);
#endif
}

/// Copies m [rows, cols] into panels, columns beyond `cols` zero.
inline void packPanels(const float* m, int64_t rows, int64_t cols, float* p, int64_t stride) {
  for (int64_t k = 0; k < rows; ++k, m += cols, p += N) {
    int64_t j = 0;
    for (; j + N <= cols; j += N) hn::Store(hn::LoadU(d, m + j), d, p + j / N * stride);
    if (j < cols) hn::Store(loadPart(m + j, cols - j), d, p + j / N * stride);
  }
}

/// out[r] = in[r] M for four rows, M [f, f] in panels; out has roundUp(f, N) columns.
HWY_INLINE void timesMatrix4(const float* in, int64_t ldin, const float* p, int64_t stride, int64_t f, float* out,
                             int64_t ldout) {
  const int64_t padded = roundUp(f, N);
  for (int r = 0; r < 4; ++r) std::memset(out + r * ldout, 0, static_cast<size_t>(padded) * sizeof(float));
  tileRow<1>(in, ldin, 1, p, stride, padded / N, f, out, ldout);
}

/// The upper Cholesky factor U, C = UᵀU, of the upper triangle of C [n, n], n a multiple of N; C is overwritten.
/// U goes to panels, 1 / U_kk to inverse. Left-looking: each block of C is updated once, with all the rows above.
/// Returns false at a pivot that is not positive and finite, or is nothing but the rounding of its diagonal element.
inline bool cholesky(float* c, int64_t ldc, int64_t n, float* u, int64_t stride, float* inverse) {
  const int64_t panels = n / N;
  constexpr float rounding = 5e-7f;
  for (int64_t k = 0; k < n; ++k) inverse[k] = rounding * c[k * ldc + k];  // the least pivot, until it is known
  for (int64_t b = 0; b < panels; ++b) {
    const int64_t k0 = b * N;
    if (k0) {
      for (int64_t i = k0; i < k0 + N; i += 4) rankUpdate4<-1>(u, stride, panels, k0, i, c, ldc);
    }
    float* diagonal = u + b * stride + k0 * N;  // [N, N]; only its upper triangle means something
    for (int64_t r = 0; r < N; ++r) hn::Store(hn::LoadU(d, c + (k0 + r) * ldc + k0), d, diagonal + r * N);
    for (int64_t r = 0; r < N; ++r) {
      const float pivot = diagonal[r * N + r];
      if (!(pivot > 0.0f && pivot > inverse[k0 + r] && pivot <= 3.0e38f)) return false;
      const float inv = 1.0f / std::sqrt(pivot);
      inverse[k0 + r] = inv;
      const V row = hn::Mul(hn::Load(d, diagonal + r * N), hn::Set(d, inv));
      hn::Store(row, d, diagonal + r * N);
      for (int64_t s = r + 1; s < N; ++s) {
        const V below = hn::Load(d, diagonal + s * N);
        hn::Store(hn::NegMulAdd(hn::Set(d, diagonal[r * N + s]), row, below), d, diagonal + s * N);
      }
    }
    for (int64_t p = b + 1; p < panels; ++p) {
      V x[N];
#pragma GCC unroll 16
      for (int64_t r = 0; r < N; ++r) {
        V v = hn::LoadU(d, c + (k0 + r) * ldc + p * N);
#pragma GCC unroll 16
        for (int64_t s = 0; s < r; ++s) v = hn::NegMulAdd(hn::Set(d, diagonal[s * N + r]), x[s], v);
        x[r] = hn::Mul(v, hn::Set(d, inverse[k0 + r]));
        hn::Store(x[r], d, u + p * stride + (k0 + r) * N);
      }
    }
  }
  return true;
}

/// Solves UᵀU x = b in place.
inline void choleskySolve(const float* u, int64_t stride, int64_t n, const float* inverse, float* x) {
  const int64_t panels = n / N;
  for (int64_t b = 0; b < panels; ++b) {  // Uᵀz = b
    const float* p = u + b * stride;
    const int64_t k0 = b * N;
    V v0 = hn::Load(d, x + k0), v1 = hn::Zero(d), v2 = v1, v3 = v1;
    for (int64_t k = 0; k < k0; k += 4) {
      v0 = hn::NegMulAdd(hn::Set(d, x[k]), hn::Load(d, p + k * N), v0);
      v1 = hn::NegMulAdd(hn::Set(d, x[k + 1]), hn::Load(d, p + (k + 1) * N), v1);
      v2 = hn::NegMulAdd(hn::Set(d, x[k + 2]), hn::Load(d, p + (k + 2) * N), v2);
      v3 = hn::NegMulAdd(hn::Set(d, x[k + 3]), hn::Load(d, p + (k + 3) * N), v3);
    }
    hn::Store(hn::Add(hn::Add(v0, v1), hn::Add(v2, v3)), d, x + k0);
    for (int64_t r = 0; r < N; ++r) {
      const float z = x[k0 + r] *= inverse[k0 + r];
      for (int64_t s = r + 1; s < N; ++s) x[k0 + s] -= z * p[(k0 + r) * N + s];
    }
  }
  for (int64_t b = panels - 1; b >= 0; --b) {  // U x = z
    const int64_t k0 = b * N;
    V sums[N];
    for (int64_t r = 0; r < N; ++r) sums[r] = hn::Zero(d);
    for (int64_t p = b + 1; p < panels; ++p) {
      const V xp = hn::Load(d, x + p * N);
#pragma GCC unroll 16
      for (int64_t r = 0; r < N; ++r) {
        sums[r] = hn::MulAdd(hn::Load(d, u + p * stride + (k0 + r) * N), xp, sums[r]);
      }
    }
    const float* diagonal = u + b * stride + k0 * N;
    for (int64_t r = N - 1; r >= 0; --r) {
      float z = x[k0 + r] - hn::GetLane(hn::SumOfLanes(d, sums[r]));
      for (int64_t s = r + 1; s < N; ++s) z -= diagonal[r * N + s] * x[k0 + s];
      x[k0 + r] = z * inverse[k0 + r];
    }
  }
}

/// Adds the 128-bit blocks of a vector.
template <class T>
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> foldTo4(T, hn::Vec<T> v) {
  if constexpr (T::kPrivateN == 4) {
    return v;
  } else {
    const hn::Half<T> half;
    return foldTo4(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

/// (Σ lanes of a, of b, of c, of e) as four lanes.
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> sums4(V a, V b, V c, V e) {
  const V ab =
      hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));  // per block a0+a2 b0+b2 a1+a3 b1+b3
  const V ce = hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e));
  const hn::Repartition<double, D> wide;
  const V low = hn::BitCast(d, hn::InterleaveLower(wide, hn::BitCast(wide, ab), hn::BitCast(wide, ce)));
  const V high = hn::BitCast(d, hn::InterleaveUpper(wide, hn::BitCast(wide, ab), hn::BitCast(wide, ce)));
  const V all = hn::Add(low, high);
  return foldTo4(d, all);
}

/// Copies `f` floats to `out`, zeros up to the next multiple of N.
HWY_INLINE void copyPadded(const float* in, int64_t f, float* out) {
  int64_t j = 0;
  for (; j + N <= f; j += N) hn::Store(hn::LoadU(d, in + j), d, out + j);
  if (j < f) hn::Store(loadPart(in + j, f - j), d, out + j);
}

/// The products of x, a row's vector padded with zeros, with the vectors of four entries from `e` on, of which `count`
/// exist. Those of later entries, which may lie anywhere, are asked for meanwhile.
HWY_INLINE void fourScores(const CsrView& rows, const MatrixView& ys, int64_t e, int64_t count, const float* x,
                           float* scores) {
  const int64_t f = ys.cols, whole = f / N * N, nnz = rows.indptr[rows.rows];
  const float* y[4];
  V s[4];
  for (int64_t r = 0; r < 4; ++r) {
    y[r] = ys.row(rows.indices[e + std::min(r, count - 1)]);
    s[r] = hn::Zero(d);
    const float* coming = ys.row(rows.indices[std::min(e + r + 16, nnz - 1)]);
    for (int64_t j = 0; j < f; j += 16) __builtin_prefetch(coming + j, 0, 2);
  }
  for (int64_t j = 0; j < whole; j += N) {
    const V v = hn::Load(d, x + j);
    for (int r = 0; r < 4; ++r) s[r] = hn::MulAdd(hn::LoadU(d, y[r] + j), v, s[r]);
  }
  if (whole < f) {
    const V v = hn::Load(d, x + whole);
    for (int r = 0; r < 4; ++r) s[r] = hn::MulAdd(loadPart(y[r] + whole, f - whole), v, s[r]);
  }
  hn::Store(sums4(s[0], s[1], s[2], s[3]), hn::FixedTag<float, 4>(), scores);
}

/// a·b over n floats, n a multiple of N.
HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  V even = hn::Zero(d), odd = even;
  int64_t j = 0;
  for (; j + 2 * N <= n; j += 2 * N) {
    even = hn::MulAdd(hn::LoadU(d, a + j), hn::LoadU(d, b + j), even);
    odd = hn::MulAdd(hn::LoadU(d, a + j + N), hn::LoadU(d, b + j + N), odd);
  }
  if (j < n) even = hn::MulAdd(hn::LoadU(d, a + j), hn::LoadU(d, b + j), even);
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
