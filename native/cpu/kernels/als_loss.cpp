// The objective of implicit ALS without its regularisation; sums over fixed blocks of rows in float64.
#include <algorithm>
#include <vector>

#include "cpu/kernels/als_schedule.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/als_loss.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/als_dense-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// Σ over the entries of row u; x is the row's factor, padded with zeros.
double entriesLoss(const AlsLossArgs& a, int64_t u, const float* x) {
  const int64_t last = a.rows.indptr[u + 1];
  double sum = 0;
  for (int64_t e = a.rows.indptr[u]; e < last; e += 4) {
    const int64_t count = std::min<int64_t>(4, last - e);
    HWY_ALIGN float scores[4];
    fourScores(a.rows, a.y, e, count, x, scores);
    for (int64_t r = 0; r < count; ++r) {
      const double score = scores[r], weight = a.rows.values[e + r];
      sum += (weight + a.bonus) * (1 - score) * (1 - score) - a.bonus * score * score;
    }
  }
  return sum;
}

}  // namespace

Status alsLoss(const Exec& exec, const AlsLossArgs& a) {
  return guard([&] {
    constexpr int64_t block = 64;
    const int64_t f = a.x.cols, padded = roundUp(f, N), blocks = (a.rows.rows + block - 1) / block;
    const Scratch gram(padded * f);
    packPanels(a.gram, f, f, gram.data(), f * N);
    std::vector<double> sums(static_cast<size_t>(blocks), 0.0);
    parallelFor(blocks, 1, exec, [&](int64_t b, int64_t, int) {
      const Scratch x(8 * padded);
      float* gx = x.data() + 4 * padded;
      double entries = 0, all = 0;
      const int64_t last = std::min(a.rows.rows, (b + 1) * block);
      for (int64_t u = b * block; u < last; u += 4) {
        std::fill_n(x.data(), 4 * padded, 0.0f);
        const int64_t count = std::min<int64_t>(4, last - u);
        for (int64_t r = 0; r < count; ++r) copyPadded(a.x.row(u + r), f, x.data() + r * padded);
        timesMatrix4(x.data(), padded, gram.data(), f * N, f, gx, padded);
        for (int64_t r = 0; r < count; ++r) {
          all += static_cast<double>(dot(x.data() + r * padded, gx + r * padded, padded));
          entries += entriesLoss(a, u + r, x.data() + r * padded);
        }
      }
      sums[b] = entries + a.unobservedWeight * all;
    });
    *a.out = 0;
    for (const double sum : sums) *a.out += sum;
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
