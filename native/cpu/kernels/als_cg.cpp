// A half-sweep of implicit ALS by conjugate gradients: Takács, Pilászy, Tikk, "Applications of the conjugate gradient
// method for implicit feedback collaborative filtering", RecSys 2011. The f x f matrix of a row is never formed.
//
// A row's factors are gathered once, into memory that is read front to back in every step and, for all but the longest
// rows, stays in a cache; eight of them at a time give eight inner products and one combined update. Four short rows go
// in step, so that gram is read once for four.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/kernels/als_schedule.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/als_cg.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/als_dense-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// out += Σ_r coefficient_r y_r for the R rows of y, with coefficient_r = c_r + w_r (y_r·v).
template <int R>
HWY_INLINE void update(const float* y, int64_t padded, const float* w, const float* c, const float* v, float* out) {
  V s[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) s[r] = hn::Zero(d);
  for (int64_t j = 0; j < padded; j += N) {
    const V x = hn::Load(d, v + j);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) s[r] = hn::MulAdd(hn::Load(d, y + r * padded + j), x, s[r]);
  }
  const hn::FixedTag<float, 4> q;
  HWY_ALIGN float k[R];
#pragma GCC unroll 2
  for (int r = 0; r < R; r += 4) {
    hn::Store(hn::MulAdd(hn::LoadU(q, w + r), sums4(s[r], s[r + 1], s[r + 2], s[r + 3]), hn::LoadU(q, c + r)), q,
              k + r);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) s[r] = hn::Set(d, k[r]);
  for (int64_t j = 0; j < padded; j += N) {
    V even = hn::Load(d, out + j), odd = hn::Zero(d);
#pragma GCC unroll 8
    for (int r = 0; r < R; r += 2) {
      even = hn::MulAdd(s[r], hn::Load(d, y + r * padded + j), even);
      odd = hn::MulAdd(s[r + 1], hn::Load(d, y + (r + 1) * padded + j), odd);
    }
    hn::Store(hn::Add(even, odd), d, out + j);
  }
}

/// out += a x.
HWY_INLINE void axpy(float a, const float* x, float* out, int64_t padded) {
  for (int64_t j = 0; j < padded; j += N) {
    hn::Store(hn::MulAdd(hn::Set(d, a), hn::Load(d, x + j), hn::Load(d, out + j)), d, out + j);
  }
}

/// The working memory of one thread, and the solution of up to four rows in it.
class BatchSolver {
 public:
  static constexpr int64_t rowsAtOnce = 4;

  BatchSolver(const AlsArgs& a, const float* gram, int64_t longest)
      : a_(a),
        gram_(gram),
        f_(a.fixed.cols),
        padded_(roundUp(f_, N)),
        shared_(std::max<int64_t>((1 << 16) / padded_, 64)),
        capacity_(roundUp(std::clamp<int64_t>(longest, shared_, std::max<int64_t>((1 << 22) / padded_, 64)), 8)) {
    memory_ = Scratch(capacity_ * (padded_ + 1) + 4 * rowsAtOnce * padded_);
    float* at = memory_.data();
    const auto take = [&at](int64_t count) { return std::exchange(at, at + count); };
    gathered_ = take(capacity_ * padded_);
    x_ = take(rowsAtOnce * padded_);
    r_ = take(rowsAtOnce * padded_);
    p_ = take(rowsAtOnce * padded_);
    ap_ = take(rowsAtOnce * padded_);
    w_ = take(capacity_);
    std::fill_n(p_, rowsAtOnce * padded_, 0.0f);
    std::fill_n(x_, rowsAtOnce * padded_, 0.0f);
  }

  /// Solves rows order[q...]; returns how many it took.
  int64_t solve(const int32_t* order, int64_t most, Ahead& ahead) {
    count_ = 0;
    int64_t used = 0;
    while (count_ < std::min(most, rowsAtOnce)) {
      Row& row = rows_[count_];
      row.u = order[count_];
      row.begin = a_.rows.indptr[row.u];
      row.n = a_.rows.indptr[row.u + 1] - row.begin;
      row.at = used;
      row.resident = used + roundUp(row.n, 4) <= capacity_;
      if (count_ && used + row.n > shared_) break;
      ++count_;
      used += roundUp(row.n, 4);
    }
    for (int64_t i = 0; i < count_; ++i) {
      const Row& row = rows_[i];
      copyPadded(a_.out + row.u * f_, f_, x_ + i * padded_);
    }
    start(ahead);
    for (int32_t step = 0; step < a_.steps; ++step) {
      if (!advance(ahead)) break;
    }
    for (int64_t i = 0; i < count_; ++i) {
      const float* x = x_ + i * padded_;
      std::memcpy(a_.out + rows_[i].u * f_, x, static_cast<size_t>(f_) * sizeof(float));
      V zero = hn::Zero(d);  // stays zero unless an element is infinite or NaN
      for (int64_t j = 0; j < padded_; j += N) zero = hn::MulAdd(hn::Load(d, x + j), hn::Zero(d), zero);
      require(hn::GetLane(hn::SumOfLanes(d, zero)) == 0.0f, ErrorCode::value, "ALS: the factors of row ", rows_[i].u,
              " overflow float32: use smaller weights or a larger regularization");
    }
    return count_;
  }

 private:
  struct Row {
    int64_t u, begin, n, at;  // at: the first gathered entry
    bool resident;
    float rr, first;  // r·r, now and at the start
    bool done;
  };

  float lambda(const Row& row) const { return a_.reg[row.u]; }

  /// Gathers entries [begin, end) of a row to place `at`, then zero rows up to a multiple of four.
  void gather(const Row& row, int64_t begin, int64_t end, int64_t at, Ahead& ahead) {
    const float* w = a_.rows.values + row.begin;
    const int32_t* ids = a_.rows.indices + row.begin;
    for (int64_t i = begin; i < end; ++i, ++at) {
      ahead.used(1);
      ahead.step(1);
      copyPadded(a_.fixed.row(ids[i]), f_, gathered_ + at * padded_);
      w_[at] = w[i];
    }
    for (int64_t i = end - begin; i % 4; ++i, ++at) {
      std::fill_n(gathered_ + at * padded_, padded_, 0.0f);
      w_[at] = 0;
    }
  }

  /// out += Σ_i (c_i + sign w_i (y_i·v)) y_i over gathered entries [at, at + n).
  void updateGathered(int64_t at, int64_t n, bool residual, const float* v, float* out, Ahead& ahead) {
    n = roundUp(n, 4);
    HWY_ALIGN float w[8], c[8] = {};
    for (int64_t i = 0; i < n;) {
      const int64_t here = n - i >= 8 ? 8 : 4;
      const float* y = gathered_ + (at + i) * padded_;
      const float* from = w_ + at + i;
      if (residual) {
        for (int64_t r = 0; r < here; ++r) {
          w[r] = -from[r];
          c[r] = from[r] + a_.bonus;
        }
        from = w;
      }
      ahead.step(2);
      here == 8 ? update<8>(y, padded_, from, c, v, out) : update<4>(y, padded_, from, c, v, out);
      i += here;
    }
  }

  void updateRow(const Row& row, bool residual, const float* v, float* out, Ahead& ahead) {
    if (row.resident && !residual) return updateGathered(row.at, row.n, residual, v, out, ahead);
    // The first time, and every time if the row is too long to be kept, its factors are gathered block by block.
    constexpr int64_t block = 32;
    const int32_t self = static_cast<int32_t>(row.u);
    Ahead again(a_.rows, &self, &self + 1, a_.fixed.data, f_);
    Ahead& coming = residual ? ahead : again;
    for (int64_t i = 0; i < row.n; i += block) {
      const int64_t end = std::min(i + block, row.n);
      const int64_t at = row.resident ? row.at + i : 0;
      gather(row, i, end, at, coming);
      updateGathered(at, end - i, residual, v, out, coming);
    }
  }

  /// r = b - A x, p = r.
  void start(Ahead& ahead) {
    timesMatrix4(x_, padded_, gram_, f_ * N, f_, ap_, padded_);
    for (int64_t i = 0; i < count_; ++i) {
      Row& row = rows_[i];
      float *x = x_ + i * padded_, *r = r_ + i * padded_, *p = p_ + i * padded_;
      for (int64_t j = 0; j < padded_; ++j) r[j] = -ap_[i * padded_ + j] - lambda(row) * x[j];
      updateRow(row, true, x, r, ahead);
      std::memcpy(p, r, static_cast<size_t>(padded_) * sizeof(float));
      row.rr = row.first = dot(r, r, padded_);
      row.done = false;
    }
  }

  /// One step of every row; false when all have converged.
  bool advance(Ahead& ahead) {
    bool any = false;
    for (int64_t i = 0; i < count_; ++i) {
      Row& row = rows_[i];
      row.done = row.done || row.rr <= 1e-30f || row.rr <= 1e-14f * row.first;
      any = any || !row.done;
    }
    if (!any) return false;
    timesMatrix4(p_, padded_, gram_, f_ * N, f_, ap_, padded_);
    for (int64_t i = 0; i < count_; ++i) {
      Row& row = rows_[i];
      if (row.done) continue;
      float *x = x_ + i * padded_, *r = r_ + i * padded_, *p = p_ + i * padded_, *ap = ap_ + i * padded_;
      axpy(lambda(row), p, ap, padded_);
      updateRow(row, false, p, ap, ahead);
      const float curvature = dot(p, ap, padded_);
      require(curvature > 0 && curvature <= 3.0e38f, ErrorCode::value, "ALS: the system of row ", row.u, " (", row.n,
              " entries, regularization ", lambda(row),
              ") is not positive definite in float32: use a larger regularization, or weights that are neither "
              "negative nor huge");
      const float alpha = row.rr / curvature;
      axpy(alpha, p, x, padded_);
      axpy(-alpha, ap, r, padded_);
      const float rr = dot(r, r, padded_), beta = rr / row.rr;
      row.rr = rr;
      for (int64_t j = 0; j < padded_; j += N) {
        hn::Store(hn::MulAdd(hn::Set(d, beta), hn::Load(d, p + j), hn::Load(d, r + j)), d, p + j);
      }
    }
    return true;
  }

  const AlsArgs& a_;
  const float* gram_;  // in panels
  int64_t f_, padded_;
  int64_t shared_;    // entries of several rows that go in step: half of a common second-level cache
  int64_t capacity_;  // entries of one row: up to 16 MB
  Scratch memory_;
  float *gathered_, *x_, *r_, *p_, *ap_, *w_;
  Row rows_[rowsAtOnce];
  int64_t count_ = 0;
};

}  // namespace

Status alsCg(const Exec& exec, const AlsArgs& a) {
  return guard([&] {
    const int64_t f = a.fixed.cols;
    const Schedule schedule(a.rows, f / 2 + 8);
    const int64_t heaviest = schedule.order.empty() ? 0 : schedule.order[0];
    const int64_t longest = schedule.order.empty() ? 0 : a.rows.indptr[heaviest + 1] - a.rows.indptr[heaviest];
    const Scratch gram(roundUp(f, N) * f);
    packPanels(a.gram, f, f, gram.data(), f * N);
    for (int64_t u = 0; u < a.rows.rows; ++u) {
      if (a.rows.indptr[u] == a.rows.indptr[u + 1]) std::fill_n(a.out + u * f, f, 0.0f);
    }
    std::vector<std::unique_ptr<BatchSolver>> solvers(maxThreads);
    parallelFor(schedule.chunks(), 1, exec, [&](int64_t chunk, int64_t, int slot) {
      if (!solvers[slot]) solvers[slot] = std::make_unique<BatchSolver>(a, gram.data(), longest);
      const int64_t end = schedule.borders[chunk + 1];
      Ahead ahead(a.rows, schedule.order.data() + schedule.borders[chunk], schedule.order.data() + end, a.fixed.data,
                  f);
      for (int64_t q = schedule.borders[chunk]; q < end;) {
        q += solvers[slot]->solve(schedule.order.data() + q, end - q, ahead);
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
