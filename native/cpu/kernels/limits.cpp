// What this machine can do at best, on the pool and the instruction set that the other kernels use: the benchmarks
// measure it beside every case and report the share that was reached.
#include <algorithm>
#include <atomic>
#include <vector>

#include "backend/limits_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/limits.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

namespace {

const hn::ScalableTag<float> d;
using Vector = hn::Vec<decltype(d)>;

float sum(const float* data, int64_t count) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  Vector s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    s0 = hn::Add(s0, hn::Load(d, data + i));
    s1 = hn::Add(s1, hn::Load(d, data + i + lanes));
    s2 = hn::Add(s2, hn::Load(d, data + i + 2 * lanes));
    s3 = hn::Add(s3, hn::Load(d, data + i + 3 * lanes));
  }
  float out = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < count; ++i) out += data[i];
  return out;
}

// Twelve chains hide the latency of two units that are four or five cycles deep, and leave registers for a and b where
// there are sixteen in all.
constexpr int64_t chains = 12, fmaSteps = 1 << 16;

float multiplyAdd(float a, float b) {
  const Vector va = hn::Set(d, a), vb = hn::Set(d, b);
  // Every chain starts elsewhere: equal ones would be merged.
  const auto start = [&](int j) { return hn::Set(d, b * static_cast<float>(j)); };
  Vector x0 = start(0), x1 = start(1), x2 = start(2), x3 = start(3), x4 = start(4), x5 = start(5);
  Vector x6 = start(6), x7 = start(7), x8 = start(8), x9 = start(9), x10 = start(10), x11 = start(11);
  for (int64_t i = 0; i < fmaSteps; ++i) {
    x0 = hn::MulAdd(x0, va, vb);
    x1 = hn::MulAdd(x1, va, vb);
    x2 = hn::MulAdd(x2, va, vb);
    x3 = hn::MulAdd(x3, va, vb);
    x4 = hn::MulAdd(x4, va, vb);
    x5 = hn::MulAdd(x5, va, vb);
    x6 = hn::MulAdd(x6, va, vb);
    x7 = hn::MulAdd(x7, va, vb);
    x8 = hn::MulAdd(x8, va, vb);
    x9 = hn::MulAdd(x9, va, vb);
    x10 = hn::MulAdd(x10, va, vb);
    x11 = hn::MulAdd(x11, va, vb);
  }
  const Vector low = hn::Add(hn::Add(hn::Add(x0, x1), hn::Add(x2, x3)), hn::Add(x4, x5));
  const Vector high = hn::Add(hn::Add(hn::Add(x6, x7), hn::Add(x8, x9)), hn::Add(x10, x11));
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(low, high)));
}

constexpr int64_t lineFloats = 16, aheadBytes = 4096;  // as far as the lookups themselves prefetch

template <bool write>
float touchRows(const MeasureRowsArgs& a, int64_t begin, int64_t end) {
  const int64_t ahead = std::clamp<int64_t>(aheadBytes / (a.cols * 4), 2, 32);
  float sum = 0;
  for (int64_t i = begin; i < end; ++i) {
    if (i + ahead < a.count) {
      const float* next = a.data + a.ids[i + ahead] * a.cols;
      for (int64_t c = 0; c < a.cols; c += lineFloats) __builtin_prefetch(next + c, write, 3);
    }
    float* row = a.data + a.ids[i] * a.cols;
    for (int64_t c = 0; c < a.cols; c += lineFloats) {
      if constexpr (write) {  // another thread may be at the same row
        const std::atomic_ref<float> x(row[c]);
        const float value = x.load(std::memory_order_relaxed);
        x.store(value, std::memory_order_relaxed);
        sum += value;
      } else {
        sum += row[c];
      }
    }
  }
  return sum;
}

}  // namespace

Status measureRows(const Exec& exec, const MeasureRowsArgs& a) {
  return guard([&] {
    constexpr int64_t grain = 1024;
    std::vector<double> sums(static_cast<size_t>((a.count + grain - 1) / grain));
    parallelFor(a.count, grain, exec, [&](int64_t begin, int64_t end, int) {
      sums[static_cast<size_t>(begin / grain)] =
          a.write ? touchRows<true>(a, begin, end) : touchRows<false>(a, begin, end);
    });
    *a.out = 0;
    for (double s : sums) *a.out += s;
  });
}

Status measureRead(const Exec& exec, const MeasureReadArgs& a) {
  return guard([&] {
    constexpr int64_t grain = 1 << 18;  // 1 MiB: long runs for the prefetchers, short waits at the end
    std::vector<double> sums(static_cast<size_t>((a.count + grain - 1) / grain));
    parallelFor(a.count, grain, exec, [&](int64_t begin, int64_t end, int) {
      sums[static_cast<size_t>(begin / grain)] = sum(a.data + begin, end - begin);
    });
    *a.out = 0;
    for (double s : sums) *a.out += s;
  });
}

Status measureFma(const Exec& exec, const MeasureFmaArgs& a) {
  return guard([&] {
    std::vector<double> sums(static_cast<size_t>(a.tasks));
    parallelFor(a.tasks, 1, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) sums[static_cast<size_t>(i)] = multiplyAdd(a.a, a.b);
    });
    *a.out = 0;
    for (double s : sums) *a.out += s;
    *a.flops = a.tasks * fmaSteps * chains * 2 * static_cast<int64_t>(hn::Lanes(d));
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
