// The rounding of embedding_rounding.h, many columns at a time: the same bits, the same results.
#include "core/dtype.h"
#include "cpu/kernels/philox-inl.h"

#if defined(TOPKNOT_EMBEDDING_ROUNDING_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_EMBEDDING_ROUNDING_INL
#undef TOPKNOT_EMBEDDING_ROUNDING_INL
#else
#define TOPKNOT_EMBEDDING_ROUNDING_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// Columns that rowBits() writes at a time: `bits` must have room for a multiple of it.
inline constexpr int64_t bitColumns = 8 * hn::MaxLanes(WordTag());

/// Sixteen random bits for each column of a row at one step: those of RowBits.
HWY_INLINE void rowBits(uint64_t seed, uint64_t row, uint64_t step, int64_t cols, uint16_t* bits) {
  const WordTag words;
  const uint64_t counter = step << 24;
  for (int64_t c = 0; c < cols; c += bitColumns) {
    Words four[4] = {hn::Iota(words, static_cast<uint32_t>(counter) + static_cast<uint32_t>(c / 8)),
                     hn::Set(words, static_cast<uint32_t>(counter >> 32)), hn::Set(words, static_cast<uint32_t>(row)),
                     hn::Set(words, static_cast<uint32_t>(row >> 32))};
    philoxLanes(seed, four);
    // Word i of counter b holds columns 8 b + 2 i, in its lower half, and 8 b + 2 i + 1.
    hn::StoreInterleaved4(four[0], four[1], four[2], four[3], words, reinterpret_cast<uint32_t*>(bits + c));
  }
}

template <class D>
HWY_INLINE void storeHalf(hn::Vec<hn::RebindToSigned<D>> v, D, uint16_t* to) {
  const hn::Rebind<uint16_t, D> half;
  hn::StoreU(hn::DemoteTo(half, v), half, to);
}

template <class D>
HWY_INLINE void storeRounded(hn::Vec<D> x, D d, const uint16_t* bits, BFloat16* to) {
  const hn::RebindToSigned<D> ints;
  const hn::RebindToUnsigned<D> wide;
  const auto u = hn::BitCast(wide, x), random = hn::PromoteTo(wide, hn::LoadU(hn::Rebind<uint16_t, D>(), bits));
  const auto rest = hn::BitCast(ints, hn::And(u, hn::Set(wide, 0x7fffffffu)));
  const auto quiet = hn::IfThenElseZero(hn::Gt(rest, hn::Set(ints, 0x7f800000)), hn::Set(ints, 0x40));
  const auto special = hn::Or(hn::BitCast(ints, hn::ShiftRight<16>(u)), quiet);
  const auto rounded = hn::BitCast(ints, hn::ShiftRight<16>(hn::Add(u, random)));
  storeHalf(hn::IfThenElse(hn::Gt(rest, hn::Set(ints, 0x7f7fffff)), special, rounded), d,
            reinterpret_cast<uint16_t*>(to));
}

template <class D>
HWY_INLINE void storeRounded(hn::Vec<D> x, D d, const uint16_t* bits, Float16* to) {
  const hn::RebindToSigned<D> ints;
  const hn::RebindToUnsigned<D> wide;
  const auto u = hn::BitCast(wide, x);
  const auto random = hn::BitCast(ints, hn::PromoteTo(wide, hn::LoadU(hn::Rebind<uint16_t, D>(), bits)));
  const auto sign = hn::BitCast(ints, hn::ShiftRight<16>(hn::And(u, hn::Set(wide, 0x80000000u))));
  const auto rest = hn::BitCast(ints, hn::And(u, hn::Set(wide, 0x7fffffffu)));
  // Thirteen bits are dropped.
  const auto up = hn::Add(rest, hn::ShiftRight<3>(random));
  const auto normal = hn::IfThenElse(hn::Gt(up, hn::Set(ints, 0x477fffff)), hn::Set(ints, 0x7c00),
                                     hn::ShiftRight<13>(hn::Sub(up, hn::Set(ints, 0x38000000))));
  // Below the smallest normal half the spacing is 2^-24. The fraction and the bits add up to 1 or more exactly if the
  // fraction is at least what the bits lack.
  const auto small = hn::Lt(rest, hn::Set(ints, 0x38800000));
  const auto steps = hn::Mul(hn::IfThenElseZero(hn::RebindMask(d, small), hn::Abs(x)), hn::Set(d, 0x1p24f));
  const auto whole = hn::ConvertTo(ints, steps);
  const auto lacking = hn::MulAdd(hn::ConvertTo(d, random), hn::Set(d, -0x1p-16f), hn::Set(d, 1.0f));
  const auto carries = hn::RebindMask(ints, hn::Ge(hn::Sub(steps, hn::ConvertTo(d, whole)), lacking));
  const auto subnormal = hn::Add(whole, hn::IfThenElseZero(carries, hn::Set(ints, 1)));
  const auto special =
      hn::IfThenElse(hn::Gt(rest, hn::Set(ints, 0x7f800000)), hn::Set(ints, 0x7e00), hn::Set(ints, 0x7c00));
  const auto finite = hn::IfThenElse(small, subnormal, normal);
  const auto all = hn::IfThenElse(hn::Gt(rest, hn::Set(ints, 0x7f7fffff)), special, finite);
  storeHalf(hn::Or(sign, all), d, reinterpret_cast<uint16_t*>(to));
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
