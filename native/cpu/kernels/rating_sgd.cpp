// Stochastic gradient descent over ratings. A rating costs one inner product and one update of two rows; what it waits
// for is memory, so rows are fetched ahead.
#include "backend/rating_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/rating_sgd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr D d{};
constexpr int64_t N = HWY_MAX_BYTES / 4;  // divides the stride, which is a multiple of 16

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  V even = hn::Zero(d), odd = even;
  int64_t j = 0;
  for (; j + 2 * N <= n; j += 2 * N) {
    even = hn::MulAdd(hn::Load(d, a + j), hn::Load(d, b + j), even);
    odd = hn::MulAdd(hn::Load(d, a + j + N), hn::Load(d, b + j + N), odd);
  }
  if (j < n) even = hn::MulAdd(hn::Load(d, a + j), hn::Load(d, b + j), even);
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
}

HWY_INLINE void prefetchRow(const float* row, int64_t stride) {
  for (int64_t j = 0; j < stride; j += 16) __builtin_prefetch(row + j, 1, 2);
}

/// Visits the ratings of one block; the sum of the squared errors before their updates.
double visit(const RatingSgdArgs& a, const RatingEntry* entry, const RatingEntry* end) {
  constexpr int64_t ahead = 8;
  const int64_t stride = a.stride;
  const V keep = hn::Set(d, 1.0f - a.learningRate * a.regularization);
  double sum = 0;
  for (; entry < end; ++entry) {
    if (entry + ahead < end) {
      prefetchRow(a.users + entry[ahead].user * stride, stride);
      prefetchRow(a.items + entry[ahead].item * stride, stride);
    }
    float *x = a.users + entry->user * stride, *y = a.items + entry->item * stride;
    const float error = entry->rating - dot(x, y, stride);
    sum += static_cast<double>(error) * static_cast<double>(error);
    const V step = hn::Set(d, a.learningRate * error);
    for (int64_t j = 0; j < stride; j += N) {
      const V xj = hn::Load(d, x + j), yj = hn::Load(d, y + j);
      hn::Store(hn::MulAdd(step, yj, hn::Mul(keep, xj)), d, x + j);
      hn::Store(hn::MulAdd(step, xj, hn::Mul(keep, yj)), d, y + j);
    }
    x[a.factors + 1] = 1;
    y[a.factors] = 1;
  }
  return sum;
}

}  // namespace

Status ratingSgd(const Exec& exec, const RatingSgdArgs& a) {
  return guard([&] {
    for (int64_t t = 0; t < a.strata && !exec.cancelled(); ++t) {
      parallelFor(a.strata, 1, exec, [&](int64_t s, int64_t, int) {
        const int64_t k = s * a.strata + (s + a.rounds[t]) % a.strata;
        a.squaredErrors[k] = visit(a, a.entries + a.borders[k], a.entries + a.borders[k + 1]);
      });
    }
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
