// Coordinate descent for nonnegative matrix factorization, a row at a time.
//
// Frobenius: the row's f x f system is formed (or given), and each coordinate's minimum is a division; Cichocki, Phan,
// "Fast local algorithms for large scale nonnegative matrix and tensor factorizations", IEICE Trans. 2009.
// KL: each coordinate's minimum by Newton's method in one dimension; Hsieh, Dhillon, "Fast coordinate descent methods
// with variable selection for non-negative matrix factorization", KDD 2011. The row's h lie factor by factor, so that
// the sums over its entries are read front to back.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "backend/nmf_args.h"
#include "cpu/kernels/als_schedule.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/nmf.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

using D = hn::ScalableTag<float>;
constexpr D d{};
constexpr int64_t N = HWY_MAX_BYTES / 4;

int64_t roundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// out += a x, of `count` floats, a multiple of N.
HWY_INLINE void axpy(float a, const float* HWY_RESTRICT x, float* HWY_RESTRICT out, int64_t count) {
  const auto factor = hn::Set(d, a);
  for (int64_t j = 0; j < count; j += N) {
    hn::Store(hn::MulAdd(factor, hn::Load(d, x + j), hn::Load(d, out + j)), d, out + j);
  }
}

/// The row being solved, as one thread holds it.
class RowSolver {
 public:
  RowSolver(const NmfArgs& a, int64_t longest)
      : a_(a), f_(a.fixed.cols), padded_(roundUp(f_, N)), w_(padded_), gradient_(padded_) {
    if (a.loss == NmfLoss::frobenius) {
      gram_ = Scratch(f_ * padded_);
      h_ = Scratch(padded_);
      std::fill_n(gram_.data(), f_ * padded_, 0.0f);
      std::fill_n(h_.data(), padded_, 0.0f);
      for (int64_t r = 0; r < f_ && a.gram; ++r) std::copy_n(a.gram + r * f_, f_, gram_.data() + r * padded_);
    } else {
      const int64_t most = roundUp(longest, N);
      h_ = Scratch(f_ * most);
      x_ = Scratch(most);
      predicted_ = Scratch(most);
    }
  }

  void solve(int64_t row) {
    begin_ = a_.rows.indptr[row], n_ = a_.rows.indptr[row + 1] - begin_;
    lambda_ = a_.reg[row];
    std::fill_n(w_.data(), padded_, 0.0f);
    std::copy_n(a_.out + row * f_, f_, w_.data());
    a_.loss == NmfLoss::frobenius ? solveFrobenius() : solveKl();
    std::copy_n(w_.data(), f_, a_.out + row * f_);
  }

 private:
  void solveFrobenius() {
    float *gram = gram_.data(), *g = gradient_.data(), *w = w_.data(), *h = h_.data();
    if (!a_.gram) std::fill_n(gram, f_ * padded_, 0.0f);
    std::fill_n(g, padded_, 0.0f);
    for (int64_t e = begin_; e < begin_ + n_; ++e) {
      std::copy_n(a_.fixed.row(a_.rows.indices[e]), f_, h);
      axpy(-a_.rows.values[e], h, g, padded_);
      for (int64_t k = 0; k < f_ && !a_.gram; ++k) axpy(h[k], h, gram + k * padded_, padded_);
    }
    for (int64_t k = 0; k < f_; ++k) axpy(w[k], gram + k * padded_, g, padded_);  // g = G w - b
    for (int32_t pass = 0; pass < a_.passes; ++pass) {
      for (int64_t k = 0; k < f_; ++k) {
        const float curvature = gram[k * padded_ + k] + lambda_;
        const float best = curvature > 0 ? std::max(0.0f, w[k] - (g[k] + lambda_ * w[k]) / curvature) : 0.0f;
        if (best == w[k]) continue;
        axpy(best - w[k], gram + k * padded_, g, padded_);
        w[k] = best;
      }
    }
  }

  void solveKl() {
    const int64_t stride = roundUp(n_, N);
    float *h = h_.data(), *x = x_.data(), *predicted = predicted_.data(), *w = w_.data(), *sums = gradient_.data();
    // Entries beyond the row: h and x of 0 and a prediction of 1 add nothing.
    for (int64_t k = 0; k < f_; ++k) std::fill(h + k * stride + n_, h + (k + 1) * stride, 0.0f);
    std::fill(x + n_, x + stride, 0.0f);
    for (int64_t i = 0; i < n_; ++i) {
      const float* row = a_.fixed.row(a_.rows.indices[begin_ + i]);
      for (int64_t k = 0; k < f_; ++k) h[k * stride + i] = row[k];
      x[i] = a_.rows.values[begin_ + i];
    }
    if (a_.sums) std::copy_n(a_.sums, f_, sums);
    for (int64_t k = 0; k < f_ && !a_.sums; ++k) {
      sums[k] = 0;
      for (int64_t i = 0; i < n_; ++i) sums[k] += h[k * stride + i];
    }
    for (int32_t pass = 0; pass < a_.passes; ++pass) {
      std::fill_n(predicted, stride, 0.0f);
      for (int64_t k = 0; k < f_; ++k) axpy(w[k], h + k * stride, predicted, stride);
      std::fill(predicted + n_, predicted + stride, 1.0f);
      for (int64_t k = 0; k < f_; ++k) w[k] = minimum(h + k * stride, stride, sums[k], w[k]);
    }
  }

  /// Σ x h / y and Σ x (h / y)², y being the predictions less `less` h.
  HWY_INLINE void derivatives(const float* h, int64_t stride, float less, float& first, float& second) {
    const auto factor = hn::Set(d, less), least = hn::Set(d, leastPrediction);
    auto s1 = hn::Zero(d), s2 = hn::Zero(d);
    for (int64_t i = 0; i < stride; i += N) {
      const auto hi = hn::Load(d, h + i), x = hn::Load(d, x_.data() + i);
      const auto y = hn::Max(hn::NegMulAdd(factor, hi, hn::Load(d, predicted_.data() + i)), least);
      const auto ratio = hn::Div(hi, y), scaled = hn::Mul(x, ratio);
      s1 = hn::Add(s1, scaled);
      s2 = hn::MulAdd(scaled, ratio, s2);
    }
    first = hn::GetLane(hn::SumOfLanes(d, s1));
    second = hn::GetLane(hn::SumOfLanes(d, s2));
  }

  /// The coordinate that minimises the objective with the others as they are; the predictions follow. The derivative is
  /// concave, so Newton's steps come to its root from below; from above, the first one may go beyond 0.
  float minimum(const float* h, int64_t stride, float sum, float w) {
    for (int step = 0; step < mostSteps; ++step) {
      float first, second;
      derivatives(h, stride, 0, first, second);
      const float slope = sum + lambda_ * w - first;
      if (std::abs(slope) <= 1e-5f * (sum + lambda_ * w) || (w == 0 && slope >= 0)) break;
      const float curvature = second + lambda_;
      float next = curvature > 0 ? w - slope / curvature : 0.0f;
      if (!(next > 0)) {
        derivatives(h, stride, w, first, second);
        next = sum - first >= 0 ? 0.0f : 0.25f * w;
      }
      axpy(next - w, h, predicted_.data(), stride);
      const bool zero = next == 0;
      w = next;
      if (zero) break;
    }
    return w;
  }

  static constexpr int mostSteps = 12;
  static constexpr float leastPrediction = 1e-20f;

  const NmfArgs& a_;
  int64_t f_, padded_, begin_ = 0, n_ = 0;
  float lambda_ = 0;
  Scratch w_, gradient_, gram_, h_, x_, predicted_;
};

}  // namespace

Status nmf(const Exec& exec, const NmfArgs& a) {
  return guard([&] {
    const int64_t f = a.fixed.cols;
    const Schedule schedule(a.rows, f);
    int64_t longest = 0;
    for (int64_t u = 0; u < a.rows.rows; ++u) {
      longest = std::max(longest, a.rows.indptr[u + 1] - a.rows.indptr[u]);
      if (a.rows.indptr[u] == a.rows.indptr[u + 1]) std::fill_n(a.out + u * f, f, 0.0f);
    }
    std::vector<std::unique_ptr<RowSolver>> solvers(maxThreads);
    parallelFor(schedule.chunks(), 1, exec, [&](int64_t chunk, int64_t, int slot) {
      if (!solvers[slot]) solvers[slot] = std::make_unique<RowSolver>(a, longest);
      for (int64_t q = schedule.borders[chunk]; q < schedule.borders[chunk + 1]; ++q) {
        solvers[slot]->solve(schedule.order[q]);
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
