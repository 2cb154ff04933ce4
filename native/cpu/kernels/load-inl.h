// Vectors of float32 from rows of float32 or of 16-bit floats.
#if defined(TOPKNOT_LOAD_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_LOAD_INL
#undef TOPKNOT_LOAD_INL
#else
#define TOPKNOT_LOAD_INL
#endif

#include <hwy/highway.h>

#include "core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> loadFloats(D d, const float* from) {
  return hwy::HWY_NAMESPACE::LoadU(d, from);
}

template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> loadFloats(D d, const BFloat16* from) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> half;
  const auto bits = hn::LoadU(half, reinterpret_cast<const uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
}

template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> loadFloats(D d, const Float16* from) {
  namespace hn = hwy::HWY_NAMESPACE;
#if HWY_TARGET == HWY_SSE4  // as toFloat() in core/dtype.h; Highway's own leaves out infinities
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> half;
  const auto bits = hn::PromoteTo(du, hn::LoadU(half, reinterpret_cast<const uint16_t*>(from)));
  const auto rest = hn::And(bits, hn::Set(du, 0x7fffu));
  const auto scaled = hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(rest)), hn::Set(d, 0x1p112f));
  const auto special = hn::VecFromMask(du, hn::Gt(rest, hn::Set(du, 0x7bffu)));
  const auto sign = hn::ShiftLeft<16>(hn::AndNot(hn::Set(du, 0x7fffu), bits));
  return hn::BitCast(d, hn::Or(hn::Or(hn::BitCast(du, scaled), sign), hn::And(special, hn::Set(du, 0x7f800000u))));
#else
  const hn::Rebind<hwy::float16_t, D> half;
  return hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(from)));
#endif
}

/// out[i] = from[i], converted.
template <class T>
HWY_INLINE void convertFloats(const T* from, int64_t count, float* out) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(loadFloats(d, from + i), d, out + i);
  if constexpr (sizeof(T) == 4) {
    for (; i < count; ++i) out[i] = from[i];
  } else {
    for (; i < count; ++i) out[i] = toFloat(from[i]);
  }
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
