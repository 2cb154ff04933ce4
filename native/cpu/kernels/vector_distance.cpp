// The distance of two vectors, for searches that meet their pairs one by one. Four sums hide the latency of the
// multiply-adds; float32 is enough, because the few winners are scored again in float64.
#include "backend/hnsw_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/vector_distance.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, vectorStep>;
using V = hn::Vec<D>;

struct Dot {
  HWY_INLINE V operator()(V a, V b, V sum) const { return hn::MulAdd(a, b, sum); }
};
struct SquaredDistance {
  HWY_INLINE V operator()(V a, V b, V sum) const {
    const V difference = hn::Sub(a, b);
    return hn::MulAdd(difference, difference, sum);
  }
};

template <typename Step>
HWY_INLINE float sumOver(const float* a, const float* b, int64_t padded) {
  constexpr D d;
  constexpr int64_t N = hn::MaxLanes(d);
  const Step step;
  V s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * N <= padded; i += 4 * N) {
    s0 = step(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
    s1 = step(hn::LoadU(d, a + i + N), hn::LoadU(d, b + i + N), s1);
    s2 = step(hn::LoadU(d, a + i + 2 * N), hn::LoadU(d, b + i + 2 * N), s2);
    s3 = step(hn::LoadU(d, a + i + 3 * N), hn::LoadU(d, b + i + 3 * N), s3);
  }
  for (; i < padded; i += N) s0 = step(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

float negatedDot(const float* a, const float* b, int64_t padded) { return -sumOver<Dot>(a, b, padded); }
float squaredDistance(const float* a, const float* b, int64_t padded) { return sumOver<SquaredDistance>(a, b, padded); }

}  // namespace

Status vectorDistance(const Exec&, const VectorDistanceArgs& a) {
  return guard([&] { *a.out = a.metric == Metric::l2 ? squaredDistance : negatedDot; });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
