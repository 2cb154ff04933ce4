// Elementwise functions and their derivatives on vectors, for the target being compiled.
#if defined(TOPKNOT_ELEMENTWISE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_ELEMENTWISE_INL_H
#undef TOPKNOT_ELEMENTWISE_INL_H
#else
#define TOPKNOT_ELEMENTWISE_INL_H
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <cstdint>
#include <limits>

#include "backend/blocks_args.h"
#include "cpu/kernels/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr FloatTag real;

HWY_INLINE Floats all(float x) { return hn::Set(real, x); }

/// `count` floats, zeros behind them; a whole vector when count is `lanes`.
HWY_INLINE Floats loadSome(const float* p, int64_t count) {
  if (count == lanes) return hn::LoadU(real, p);
  HWY_ALIGN float part[lanes] = {};
  for (int64_t i = 0; i < count; ++i) part[i] = p[i];
  return hn::Load(real, part);
}

HWY_INLINE void storeSome(Floats v, float* p, int64_t count) {
  if (count == lanes) return hn::StoreU(v, real, p);
  HWY_ALIGN float part[lanes];
  hn::Store(v, real, part);
  for (int64_t i = 0; i < count; ++i) p[i] = part[i];
}

/// Calls body(i, count) for the vectors of [0, n): count is `lanes` for all but the last.
template <typename F>
HWY_INLINE void forVectors(int64_t n, const F& body) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, lanes);
  if (i < n) body(i, n - i);
}

HWY_INLINE Floats orNan(Floats x, Floats result) { return hn::IfThenElse(hn::Eq(x, x), result, x); }

HWY_INLINE Floats exp(Floats x) { return orNan(x, hn::Exp(real, hn::Min(x, all(104.0f)))); }  // from 89 on infinite

HWY_INLINE Floats sigmoid(Floats x) { return hn::Div(all(1), hn::Add(all(1), exp(hn::Neg(x)))); }

HWY_INLINE Floats log(Floats x) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Floats edge = hn::IfThenElse(hn::Eq(x, hn::Zero(real)), all(-infinity), all(std::nanf("")));
  const Floats inside = hn::IfThenElse(hn::Eq(x, all(infinity)), x, hn::Log(real, x));
  return orNan(x, hn::IfThenElse(hn::Gt(x, hn::Zero(real)), inside, edge));
}

/// The density and the distribution function of the standard normal distribution.
HWY_INLINE void normal(Floats x, Floats& density, Floats& below) {
  const Floats z = hn::Mul(hn::Abs(x), all(0.707106781f));
  const Floats power = exp(hn::Neg(hn::Mul(z, z)));
  density = hn::Mul(power, all(0.398942280f));
  // erfc(z) exp(z²) as a polynomial in 1 / (1 + 0.36 z), fitted by weighted least squares to 4e-7 in relative terms.
  const Floats t = hn::Div(all(1), hn::MulAdd(z, all(0.36f), all(1)));
  Floats p = all(0.0684992522f);
  p = hn::MulAdd(p, t, all(-0.370607644f));
  p = hn::MulAdd(p, t, all(0.692663312f));
  p = hn::MulAdd(p, t, all(-0.536480844f));
  p = hn::MulAdd(p, t, all(0.502956748f));
  p = hn::MulAdd(p, t, all(0.0132136187f));
  p = hn::MulAdd(p, t, all(0.229531541f));
  p = hn::MulAdd(p, t, all(0.196511984f));
  p = hn::MulAdd(p, t, all(0.203738287f));
  p = hn::MulAdd(p, t, all(-2.6232563e-05f));
  const Floats tail = hn::Mul(hn::Mul(power, p), all(0.5f));
  below = hn::IfThenElse(hn::Lt(x, hn::Zero(real)), tail, hn::Sub(all(1), tail));
}

/// gelu by tanh is x sigmoid(2 u): u = sqrt(2 / π) (x + 0.044715 x³), doubled; `slope` is its derivative.
HWY_INLINE Floats geluArgument(Floats x, Floats& slope) {
  const Floats square = hn::Mul(x, x);
  slope = hn::MulAdd(square, all(3 * 0.0713548163f), all(1.59576912f));
  return hn::Mul(x, hn::MulAdd(square, all(0.0713548163f), all(1.59576912f)));
}

template <Unary f>
HWY_INLINE Floats apply(Floats x) {
  if constexpr (f == Unary::relu) return orNan(x, hn::Max(x, hn::Zero(real)));
  if constexpr (f == Unary::gelu) {
    Floats density, below;
    normal(x, density, below);
    return hn::Mul(x, below);
  }
  if constexpr (f == Unary::geluTanh) {
    Floats slope;
    return hn::Mul(x, sigmoid(geluArgument(x, slope)));
  }
  if constexpr (f == Unary::sigmoid) return sigmoid(x);
  if constexpr (f == Unary::tanh) return orNan(x, hn::Tanh(real, x));
  if constexpr (f == Unary::silu) return hn::Mul(x, sigmoid(x));
  if constexpr (f == Unary::exp) return exp(x);
  if constexpr (f == Unary::log) return log(x);
  if constexpr (f == Unary::sqrt) return hn::Sqrt(x);
  return x;
}

/// f'(x); with fromOut x is a result of f.
template <Unary f, bool fromOut = false>
HWY_INLINE Floats derivative(Floats x) {
  const Floats one = all(1);
  if constexpr (f == Unary::relu) return orNan(x, hn::IfThenElseZero(hn::Gt(x, hn::Zero(real)), one));
  if constexpr (f == Unary::gelu) {
    Floats density, below;
    normal(x, density, below);
    return hn::MulAdd(x, density, below);
  }
  if constexpr (f == Unary::geluTanh) {
    Floats slope;
    const Floats s = sigmoid(geluArgument(x, slope));
    return hn::MulAdd(hn::Mul(x, slope), hn::Mul(s, hn::Sub(one, s)), s);
  }
  if constexpr (f == Unary::sigmoid) {
    const Floats s = fromOut ? x : sigmoid(x);
    return hn::Mul(s, hn::Sub(one, s));
  }
  if constexpr (f == Unary::tanh) {
    const Floats t = fromOut ? x : apply<Unary::tanh>(x);
    return hn::NegMulAdd(t, t, one);
  }
  if constexpr (f == Unary::silu) {
    const Floats s = sigmoid(x);
    return hn::MulAdd(hn::Mul(x, s), hn::Sub(one, s), s);
  }
  if constexpr (f == Unary::exp) return exp(x);
  if constexpr (f == Unary::log) return hn::Div(one, x);
  if constexpr (f == Unary::sqrt) return hn::Div(all(0.5f), hn::Sqrt(x));
  return one;
}

template <Unary f>
struct Function {
  static constexpr Unary value = f;
};

/// Calls f(Function<value>()).
template <typename F>
HWY_INLINE void withFunction(Unary value, const F& f) {
  switch (value) {
    case Unary::none:
      return f(Function<Unary::none>());
    case Unary::relu:
      return f(Function<Unary::relu>());
    case Unary::gelu:
      return f(Function<Unary::gelu>());
    case Unary::geluTanh:
      return f(Function<Unary::geluTanh>());
    case Unary::sigmoid:
      return f(Function<Unary::sigmoid>());
    case Unary::tanh:
      return f(Function<Unary::tanh>());
    case Unary::silu:
      return f(Function<Unary::silu>());
    case Unary::exp:
      return f(Function<Unary::exp>());
    case Unary::log:
      return f(Function<Unary::log>());
    case Unary::sqrt:
      return f(Function<Unary::sqrt>());
  }
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
