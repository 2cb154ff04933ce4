// Elements of one type as another; the place of the first that does not fit.
#include <algorithm>
#include <atomic>

#include "backend/copy_args.h"
#include "core/convert.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/cast.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// out[begin, end); the place of the first that does not fit, or `none`.
template <typename From, typename To>
int64_t castRange(const From* x, To* out, int64_t begin, int64_t end, int64_t none) {
  for (int64_t i = begin; i < end; ++i) {
    if constexpr (mayOverflow(dtypeOf<From>, dtypeOf<To>)) {
      if (!holds<To>(x[i])) return i;
    }
    out[i] = convert<To>(x[i]);
  }
  return none;
}

}  // namespace

Status cast(const Exec& exec, const CastArgs& a) {
  return guard([&] {
    std::atomic<int64_t> first{a.count};
    dispatch(a.from, [&]<typename From>(From) {
      dispatch(a.to, [&]<typename To>(To) {
        parallelFor(a.count, 1 << 16, exec, [&](int64_t begin, int64_t end, int) {
          const int64_t found = castRange(static_cast<const From*>(a.x), static_cast<To*>(a.out), begin, end, a.count);
          int64_t known = first;
          while (found < known && !first.compare_exchange_weak(known, found)) {
          }
        });
      });
    });
    *a.first = first;
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
