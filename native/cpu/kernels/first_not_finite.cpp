// The place of the first number that is NaN or infinite: one whose exponent has all bits set.
#include <algorithm>
#include <atomic>

#include "backend/checks_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/first_not_finite.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

using Bits32 [[gnu::may_alias]] = uint32_t;
using Bits16 [[gnu::may_alias]] = uint16_t;

/// Of x[begin, end); `none` where there is none.
template <typename Bits>
int64_t firstIn(const Bits* x, uint32_t exponent, int64_t begin, int64_t end, int64_t none) {
  constexpr int64_t step = 1024;
  for (int64_t from = begin; from < end; from += step) {
    const int64_t to = from + step < end ? from + step : end;
    bool any = false;
    for (int64_t i = from; i < to; ++i) any |= (x[i] & exponent) == exponent;
    if (!any) continue;
    for (int64_t i = from; i < to; ++i) {
      if ((x[i] & exponent) == exponent) return i;
    }
  }
  return none;
}

}  // namespace

Status firstNotFinite(const Exec& exec, const FirstNotFiniteArgs& a) {
  return guard([&] {
    std::atomic<int64_t> first{a.count};
    parallelFor(a.count, 1 << 16, exec, [&](int64_t begin, int64_t end, int) {
      const uint32_t half = a.type == FloatType::float16 ? 0x7c00 : 0x7f80;
      const int64_t found = a.type == FloatType::float32
                                ? firstIn(static_cast<const Bits32*>(a.x), 0x7f800000u, begin, end, a.count)
                                : firstIn(static_cast<const Bits16*>(a.x), half, begin, end, a.count);
      int64_t known = first;
      while (found < known && !first.compare_exchange_weak(known, found)) {
      }
    });
    *a.first = first;
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
