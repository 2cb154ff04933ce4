// Softmax and its logarithm over rows, forward and backward.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/blocks_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/softmax.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/elementwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr float minusInfinity = -std::numeric_limits<float>::infinity();

int64_t rowsPerChunk(int64_t cols) { return std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(cols, 1)); }

float sumLanes(Floats v) { return hn::GetLane(hn::SumOfLanes(real, v)); }

/// `count` floats, then -infinity.
HWY_INLINE Floats loadScores(const float* p, int64_t count) {
  if (count == lanes) return hn::LoadU(real, p);
  const auto here = hn::FirstN(real, static_cast<size_t>(count));
  return hn::IfThenElse(here, loadSome(p, count), all(minusInfinity));
}

HWY_NOINLINE void softmaxRow(const float* x, int64_t n, bool log, float* out) {
  Floats most = all(minusInfinity);
  forVectors(n, [&](int64_t i, int64_t count) HWY_ATTR { most = hn::Max(most, loadScores(x + i, count)); });
  const float largest = hn::GetLane(hn::MaxOfLanes(real, most));
  if (largest == minusInfinity) {  // nothing but -infinity, or a NaN, which a maximum may pass over
    float fill = log ? minusInfinity : 0.0f;
    for (int64_t i = 0; i < n; ++i) fill = x[i] != x[i] ? x[i] : fill;
    std::fill_n(out, n, fill);
    return;
  }
  const Floats shift = all(largest);
  Floats sum = hn::Zero(real);
  forVectors(n, [&](int64_t i, int64_t count) HWY_ATTR {
    const Floats power = exp(hn::Sub(loadScores(x + i, count), shift));
    sum = hn::Add(sum, power);
    if (!log) storeSome(power, out + i, count);
  });
  const float total = sumLanes(sum);
  const Floats factor = all(1 / total), logTotal = all(std::log(total));
  forVectors(n, [&](int64_t i, int64_t count) HWY_ATTR {
    // The maximum goes first: added to the logarithm it would take its digits.
    const Floats v =
        log ? hn::Sub(hn::Sub(loadSome(x + i, count), shift), logTotal) : hn::Mul(loadSome(out + i, count), factor);
    storeSome(v, out + i, count);
  });
}

HWY_NOINLINE void softmaxRowGradient(const float* y, const float* gradient, int64_t n, bool log, float* out) {
  Floats sum = hn::Zero(real);
  forVectors(n, [&](int64_t i, int64_t count) HWY_ATTR {
    const Floats g = loadSome(gradient + i, count);
    sum = log ? hn::Add(sum, g) : hn::MulAdd(g, loadSome(y + i, count), sum);
  });
  const Floats total = all(sumLanes(sum));
  forVectors(n, [&](int64_t i, int64_t count) HWY_ATTR {
    const Floats g = loadSome(gradient + i, count), p = loadSome(y + i, count);
    storeSome(log ? hn::NegMulAdd(exp(p), total, g) : hn::Mul(p, hn::Sub(g, total)), out + i, count);
  });
}

}  // namespace

Status softmax(const Exec& exec, const SoftmaxArgs& a) {
  return guard([&] {
    parallelFor(a.rows, rowsPerChunk(a.cols), exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) softmaxRow(a.x + r * a.cols, a.cols, a.log, a.out + r * a.cols);
    });
  });
}

Status softmaxGradient(const Exec& exec, const SoftmaxGradientArgs& a) {
  return guard([&] {
    parallelFor(a.rows, rowsPerChunk(a.cols), exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t at = r * a.cols;
        softmaxRowGradient(a.y + at, a.gradient + at, a.cols, a.log, a.out + at);
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
