// Rows of factors that are 64-byte aligned and padded with zeros to a multiple of 16 floats: no tails.
#if defined(TOPKNOT_PADDED_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_PADDED_ROWS_INL
#undef TOPKNOT_PADDED_ROWS_INL
#else
#define TOPKNOT_PADDED_ROWS_INL
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

const hn::CappedTag<float, 16> d;  // a stride holds whole vectors
constexpr int64_t N = static_cast<int64_t>(hn::MaxLanes(d));
using V = hn::Vec<decltype(d)>;

/// Inlined, because GCC takes a function that only prefetches for one without effect.
HWY_INLINE void prefetchRow(const float* row, int64_t stride) {
  for (int64_t c = 0; c < stride; c += 16) __builtin_prefetch(row + c, 1, 3);
}

/// x·(y - z), or x·y without z.
template <bool difference>
HWY_INLINE float dot(const float* x, const float* y, const float* z, int64_t stride) {
  V sums[16 / N];
  for (V& sum : sums) sum = hn::Zero(d);
  for (int64_t c = 0; c < stride; c += 16) {
    for (int64_t k = 0; k < 16 / N; ++k) {
      const int64_t at = c + k * N;
      const V v = difference ? hn::Sub(hn::Load(d, y + at), hn::Load(d, z + at)) : hn::Load(d, y + at);
      sums[k] = hn::MulAdd(hn::Load(d, x + at), v, sums[k]);
    }
  }
  for (int64_t k = 1; k < 16 / N; ++k) sums[0] = hn::Add(sums[0], sums[k]);
  return hn::GetLane(hn::SumOfLanes(d, sums[0]));
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
