// A half-sweep of ALS by Cholesky factorisation of each row's system.
//
// A row with n entries needs A = gram + λI + Σ w y yᵀ: n f (f + 1) flop for the sum, f³ / 3 to factorise it. Rows with
// n < f are solved in n dimensions instead. In the eigenbasis of gram (found once for the half-sweep, the fixed factors
// rotated into it) gram + λI is a diagonal D for every λ, and with Z = W^½ Y D^-½ (n x f) the identity
//   (D + Yᵀ W Y)⁻¹ Yᵀ c = D^-½ Zᵀ (I + Z Zᵀ)⁻¹ W^-½ c
// leaves n² f + n³ / 3 flop, with no subtraction and no eigenvalue below 1 in the matrix to factorise. Without a gram
// matrix D is λI and nothing needs rotating. An offset v is taken out first: with v' = D⁻¹ v, x - v' solves the system
// whose right-hand side is Yᵀ (c - W Y v').
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/kernels/als_eigen.h"
#include "cpu/kernels/als_schedule.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/als_cholesky.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/als_dense-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// What all threads share.
struct Half {
  const AlsArgs& a;
  int64_t f, padded;
  const float* factors;  // the fixed factors: as given, or rotated and padded to `ld` columns with zeros
  int64_t ld;
  const float* eigenvalues;   // of gram, when the factors are in its eigenbasis; else null
  const float* rotationBack;  // panels that turn a solution back; null: gram is zero, nothing was turned
  int64_t rotationStride;
  const float* offset;  // as given, or turned into the eigenbasis; null: zero
  int64_t ldOffset;

  const float* factor(int64_t i) const { return factors + i * ld; }
};

/// The working memory of one thread, and the solution of one row in it.
class RowSolver {
 public:
  explicit RowSolver(const Half& h)
      : h_(h),
        depth_(std::clamp<int64_t>(4096 / h.padded / 4 * 4, 16, 64)),
        ldc_(h.padded + 16),
        stride_((std::max(h.padded, depth_) + 2) * N),
        panels_(h.padded / N) {
    const int64_t matrix = panels_ * stride_;
    memory_ = Scratch(h.padded * ldc_ + 2 * matrix + 13 * h.padded);
    float* at = memory_.data();
    const auto take = [&at](int64_t count) { return std::exchange(at, at + count); };
    c_ = take(h.padded * ldc_);
    p_ = take(matrix);
    u_ = take(matrix);
    inverse_ = take(h.padded);
    x_ = take(h.padded);
    scale_ = take(h.padded);
    root_ = take(h.padded);
    shift_ = take(h.padded);
    solved_ = take(4 * h.padded);
    back_ = take(4 * h.padded);
  }

  void solve(int64_t u, Ahead& ahead) {
    const int64_t begin = h_.a.rows.indptr[u], n = h_.a.rows.indptr[u + 1] - begin;
    const float* w = h_.a.rows.values + begin;
    const int32_t* ids = h_.a.rows.indices + begin;
    const float* targets = h_.a.targets ? h_.a.targets + begin : nullptr;
    const float lambda = h_.a.reg[u];
    offset_ = h_.offset ? h_.offset + u * h_.ldOffset : nullptr;
    float least = w[0];
    for (int64_t i = 1; i < n; ++i) least = std::min(least, w[i]);
    // W^-½ and D^-½ must exist; a weight of zero or below, or a singular D, goes the other way.
    const bool small = h_.eigenvalues && n < h_.f && least > 1e-30f && h_.eigenvalues[0] + lambda > 1e-30f;
    const bool ok = (small && solveSmall(n, ids, w, targets, lambda, ahead)) ||
                    solveFull(n, ids, w, targets, lambda, least < 0, ahead);
    require(ok, ErrorCode::value, "ALS: the system of row ", u, " (", n, " entries, regularization ", lambda,
            ") is not positive definite in float32: use a larger regularization, or weights that are neither negative "
            "nor huge");
    finish(u);
  }

  /// Writes the rows that wait to be rotated back.
  void flush() {
    if (!waiting_) return;
    timesMatrix4(solved_, h_.padded, h_.rotationBack, h_.rotationStride, h_.f, back_, h_.padded);
    for (int64_t r = 0; r < waiting_; ++r) write(rows_[r], back_ + r * h_.padded);
    waiting_ = 0;
  }

 private:
  /// The f x f system.
  bool solveFull(int64_t n, const int32_t* ids, const float* w, const float* targets, float lambda, bool negative,
                 Ahead& ahead) {
    const int64_t f = h_.f, padded = h_.padded;
    for (int64_t i = 0; i < padded; ++i) {
      float* row = c_ + i * ldc_;
      const int64_t first = i / N * N;
      if (h_.eigenvalues || !h_.a.gram || i >= f) {
        std::memset(row + first, 0, static_cast<size_t>(padded - first) * sizeof(float));
        row[i] = i >= f ? 1.0f : (h_.eigenvalues ? h_.eigenvalues[i] : 0.0f) + lambda;
      } else {
        const float* gram = h_.a.gram + i * f;
        std::memcpy(row + first, gram + first, static_cast<size_t>(f - first) * sizeof(float));
        std::memset(row + f, 0, static_cast<size_t>(padded - f) * sizeof(float));
        row[i] += lambda;
      }
    }
    std::memset(x_, 0, static_cast<size_t>(padded) * sizeof(float));
    if (offset_) std::memcpy(x_, offset_, static_cast<size_t>(f) * sizeof(float));
    const int64_t groups = roundUp(f, 4) / 4;
    for (int64_t begin = 0; begin < n; begin += depth_) {
      const int64_t count = std::min(depth_, n - begin);
      pack<1>(ids + begin, w + begin, targets ? targets + begin : nullptr, count, true);
      ahead.used(count);
      const int64_t fetch = (count + groups - 1) / groups + 1;
      for (int64_t g = 0; g < groups; ++g) {
        ahead.step(fetch);
        rankUpdate4<1>(p_, stride_, panels_, count, g * 4, c_, ldc_);
      }
    }
    for (int64_t begin = 0; negative && begin < n; begin += depth_) {
      const int64_t count = std::min(depth_, n - begin);
      pack<-1>(ids + begin, w + begin, nullptr, count, false);
      for (int64_t i = 0; i < f; i += 4) rankUpdate4<-1>(p_, stride_, panels_, count, i, c_, ldc_);
    }
    if (!cholesky(c_, ldc_, padded, u_, stride_, inverse_)) return false;
    choleskySolve(u_, stride_, padded, inverse_, x_);
    return true;
  }

  /// Packs √(sign w) y of `count` entries (zero where sign w is negative) and, if asked, adds t y to x.
  template <int sign>
  void pack(const int32_t* ids, const float* w, const float* targets, int64_t count, bool rhs) {
    const int64_t whole = h_.ld / N, part = h_.ld - whole * N;
    for (int64_t k = 0; k < count; k += 4) {  // four at a time; those beyond the end are packed as zeros
      const float* y[4];
      V s[4], c[4];
      for (int64_t r = 0; r < 4; ++r) {
        const bool inside = k + r < count;
        const float weight = inside ? w[k + r] : 0.0f;
        y[r] = h_.factor(ids[inside ? k + r : count - 1]);
        s[r] = hn::Set(d, std::sqrt(std::max(sign * weight, 0.0f)));
        c[r] = hn::Set(d, rhs && inside ? (targets ? targets[k + r] : weight + h_.a.bonus) : 0.0f);
      }
      float* p = p_ + k * N;
      const auto put = [&](V v0, V v1, V v2, V v3, float* x) {
        const V even = hn::MulAdd(c[2], v2, hn::MulAdd(c[0], v0, hn::Load(d, x)));
        const V odd = hn::MulAdd(c[3], v3, hn::Mul(c[1], v1));
        hn::Store(hn::Mul(s[0], v0), d, p);
        hn::Store(hn::Mul(s[1], v1), d, p + N);
        hn::Store(hn::Mul(s[2], v2), d, p + 2 * N);
        hn::Store(hn::Mul(s[3], v3), d, p + 3 * N);
        hn::Store(hn::Add(even, odd), d, x);
        p += stride_;
      };
      for (int64_t j = 0; j < whole * N; j += N) {
        put(hn::LoadU(d, y[0] + j), hn::LoadU(d, y[1] + j), hn::LoadU(d, y[2] + j), hn::LoadU(d, y[3] + j), x_ + j);
      }
      if (whole < panels_) {
        const int64_t j = whole * N;
        put(loadPart(y[0] + j, part), loadPart(y[1] + j, part), loadPart(y[2] + j, part), loadPart(y[3] + j, part),
            x_ + j);
      }
    }
  }

  /// The n x n system in the eigenbasis.
  bool solveSmall(int64_t n, const int32_t* ids, const float* w, const float* targets, float lambda, Ahead& ahead) {
    const int64_t f = h_.f, padded = h_.padded, size = roundUp(n, N);
    if (lambda != rootLambda_) {  // rows come by falling n, so λ changes seldom
      for (int64_t j = 0; j < padded; ++j) root_[j] = j < f ? 1.0f / std::sqrt(h_.eigenvalues[j] + lambda) : 0.0f;
      rootLambda_ = lambda;
    }
    ahead.used(n);
    if (offset_) {
      for (int64_t j = 0; j < padded; ++j) shift_[j] = j < f ? offset_[j] * root_[j] * root_[j] : 0.0f;
    }
    for (int64_t i = 0; i < size; ++i) {
      scale_[i] = i < n ? std::sqrt(w[i]) : 0.0f;
      float target = i >= n ? 0.0f : targets ? targets[i] : w[i] + h_.a.bonus;
      if (offset_ && i < n) target -= w[i] * dot(h_.factor(ids[i]), shift_, padded);
      x_[i] = i < n ? target / scale_[i] : 0.0f;
      float* row = c_ + i * ldc_;
      for (int64_t j = i / N * N; j < size; j += N) hn::Store(hn::Zero(d), d, row + j);
      row[i] = 1.0f;
    }
    packTransposed(n, ids, size);
    const int64_t groups = roundUp(n, 4) / 4, fetch = (n + groups - 1) / groups + 1;
    for (int64_t g = 0; g < groups; ++g) {
      ahead.step(fetch);
      rankUpdate4<1>(p_, stride_, size / N, f, g * 4, c_, ldc_);
    }
    if (!cholesky(c_, ldc_, size, u_, stride_, inverse_)) {
      ahead.used(-n);  // the row is read again
      return false;
    }
    choleskySolve(u_, stride_, size, inverse_, x_);
    combine(n, ids);
    return true;
  }

  /// Zᵀ in panels: element (k, i) is √w_i y_ik root_k, zero for the columns from n to size.
  void packTransposed(int64_t n, const int32_t* ids, int64_t size) {
    const hn::FixedTag<float, 4> q;
    const hn::Repartition<double, decltype(q)> wide;
    for (int64_t i = 0; i < size; i += 4) {
      const auto s = hn::Load(q, scale_ + i);
      const float* y[4];
      for (int64_t r = 0; r < 4; ++r) y[r] = h_.factor(ids[std::min(i + r, n - 1)]);
      float* p = p_ + i / N * stride_ + i % N;
      for (int64_t k = 0; k < h_.padded; k += 4, p += 4 * N) {
        const auto root = hn::Load(q, root_ + k);
        const auto a = hn::Load(q, y[0] + k), b = hn::Load(q, y[1] + k);
        const auto c = hn::Load(q, y[2] + k), e = hn::Load(q, y[3] + k);
        const auto ab = hn::BitCast(wide, hn::InterleaveLower(q, a, b));
        const auto AB = hn::BitCast(wide, hn::InterleaveUpper(q, a, b));
        const auto ce = hn::BitCast(wide, hn::InterleaveLower(q, c, e));
        const auto CE = hn::BitCast(wide, hn::InterleaveUpper(q, c, e));
        const auto put = [&](int row, auto value, auto r) {
          hn::Store(hn::Mul(hn::Mul(hn::BitCast(q, value), r), s), q, p + row * N);
        };
        put(0, hn::InterleaveLower(wide, ab, ce), hn::Broadcast<0>(root));
        put(1, hn::InterleaveUpper(wide, ab, ce), hn::Broadcast<1>(root));
        put(2, hn::InterleaveLower(wide, AB, CE), hn::Broadcast<2>(root));
        put(3, hn::InterleaveUpper(wide, AB, CE), hn::Broadcast<3>(root));
      }
    }
  }

  /// x = D⁻¹ Σ √w_i x_i y_i.
  void combine(int64_t n, const int32_t* ids) {
    for (int64_t i = 0; i < n; ++i) scale_[i] *= x_[i];
    for (int64_t j = 0; j < h_.padded; j += N) hn::Store(hn::Zero(d), d, x_ + j);
    for (int64_t i = 0; i < n; i += 4) {
      const float* y[4];
      V s[4];
      for (int64_t r = 0; r < 4; ++r) {
        y[r] = h_.factor(ids[std::min(i + r, n - 1)]);
        s[r] = hn::Set(d, i + r < n ? scale_[i + r] : 0.0f);
      }
      for (int64_t j = 0; j < h_.padded; j += N) {
        const V even =
            hn::MulAdd(s[2], hn::Load(d, y[2] + j), hn::MulAdd(s[0], hn::Load(d, y[0] + j), hn::Load(d, x_ + j)));
        const V odd = hn::MulAdd(s[3], hn::Load(d, y[3] + j), hn::Mul(s[1], hn::Load(d, y[1] + j)));
        hn::Store(hn::Add(even, odd), d, x_ + j);
      }
    }
    for (int64_t j = 0; j < h_.padded; j += N) {
      const V r = hn::Load(d, root_ + j);
      const V shift = offset_ ? hn::Load(d, shift_ + j) : hn::Zero(d);
      hn::Store(hn::MulAdd(hn::Load(d, x_ + j), hn::Mul(r, r), shift), d, x_ + j);
    }
  }

  void finish(int64_t u) {
    V zero = hn::Zero(d);  // stays zero unless an element is infinite or NaN
    for (int64_t j = 0; j < h_.padded; j += N) zero = hn::MulAdd(hn::Load(d, x_ + j), hn::Zero(d), zero);
    require(hn::GetLane(hn::SumOfLanes(d, zero)) == 0.0f, ErrorCode::value, "ALS: the factors of row ", u,
            " overflow float32: use smaller weights or a larger regularization");
    if (!h_.rotationBack) return write(u, x_);
    std::memcpy(solved_ + waiting_ * h_.padded, x_, static_cast<size_t>(h_.padded) * sizeof(float));
    rows_[waiting_++] = u;
    if (waiting_ == 4) flush();
  }

  void write(int64_t u, const float* x) {
    std::memcpy(h_.a.out + u * h_.f, x, static_cast<size_t>(h_.f) * sizeof(float));
  }

  const Half& h_;
  int64_t depth_, ldc_, stride_, panels_;
  Scratch memory_;
  float *c_, *p_, *u_, *inverse_, *x_, *scale_, *root_, *shift_, *solved_, *back_;
  const float* offset_ = nullptr;  // of the row in hand
  float rootLambda_ = -1;
  int64_t rows_[4] = {}, waiting_ = 0;
};

/// Whether the flop saved on short rows are worth the eigenvectors and the rotations.
bool rotationPays(const CsrView& rows, int64_t f, int64_t fixedRows) {
  const double F = static_cast<double>(f);
  double saved = -60 * F * F * F - 2 * F * F * static_cast<double>(fixedRows + rows.rows);
  for (int64_t u = 0; u < rows.rows; ++u) {
    const double n = static_cast<double>(rows.indptr[u + 1] - rows.indptr[u]);
    if (n > 0 && n < F) saved += n * F * (F - n) + (F * F * F - n * n * n) / 3;
  }
  return saved > 0;
}

/// out = factors M, M in panels; out has `padded` columns.
void rotate(const Exec& exec, const MatrixView& factors, const float* m, int64_t stride, int64_t padded, float* out) {
  parallelFor(factors.rows, 256, exec, [&](int64_t begin, int64_t end, int) {
    int64_t i = begin;
    for (; i + 4 <= end; i += 4) {
      timesMatrix4(factors.row(i), factors.cols, m, stride, factors.cols, out + i * padded, padded);
    }
    if (i == end) return;
    std::vector<float> in(static_cast<size_t>(4 * factors.cols), 0.0f);
    Scratch rest(4 * padded);
    std::copy(factors.row(i), factors.row(end), in.begin());
    timesMatrix4(in.data(), factors.cols, m, stride, factors.cols, rest.data(), padded);
    std::copy(rest.data(), rest.data() + (end - i) * padded, out + i * padded);
  });
}

}  // namespace

Status alsCholesky(const Exec& exec, const AlsArgs& a) {
  return guard([&] {
    const int64_t f = a.fixed.cols, padded = roundUp(f, N), stride = f * N;
    const Schedule schedule(a.rows, f);
    Half half{a, f, padded, a.fixed.data, f, nullptr, nullptr, stride, a.offset, f};
    EigenBasis basis;
    Scratch panels, turned, turnedOffset, zeros;
    if (!a.gram) {
      turned = Scratch(a.fixed.rows * padded);
      parallelFor(a.fixed.rows, 1024, exec, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) copyPadded(a.fixed.row(i), f, turned.data() + i * padded);
      });
      zeros = Scratch(f);
      std::fill_n(zeros.data(), f, 0.0f);
      half.eigenvalues = zeros.data();
      half.factors = turned.data();
      half.ld = padded;
    } else if (rotationPays(a.rows, f, a.fixed.rows)) {
      basis = EigenBasis(a.gram, f);
      panels = Scratch(padded * f);
      turned = Scratch(a.fixed.rows * padded);
      packPanels(basis.q.data(), f, f, panels.data(), stride);
      rotate(exec, a.fixed, panels.data(), stride, padded, turned.data());
      if (a.offset) {
        turnedOffset = Scratch(a.rows.rows * padded);
        rotate(exec, {a.offset, a.rows.rows, f}, panels.data(), stride, padded, turnedOffset.data());
        half.offset = turnedOffset.data();
        half.ldOffset = padded;
      }
      packPanels(basis.transposed.data(), f, f, panels.data(), stride);
      half.eigenvalues = basis.values.data();
      half.factors = turned.data();
      half.ld = padded;
      half.rotationBack = panels.data();
    }
    for (int64_t u = 0; u < a.rows.rows; ++u) {
      if (a.rows.indptr[u] == a.rows.indptr[u + 1]) std::fill_n(a.out + u * f, f, 0.0f);
    }
    std::vector<std::unique_ptr<RowSolver>> solvers(maxThreads);
    parallelFor(schedule.chunks(), 1, exec, [&](int64_t chunk, int64_t, int slot) {
      if (!solvers[slot]) solvers[slot] = std::make_unique<RowSolver>(half);
      const int64_t begin = schedule.borders[chunk], end = schedule.borders[chunk + 1];
      Ahead ahead(a.rows, schedule.order.data() + begin, schedule.order.data() + end, half.factors, half.ld);
      for (int64_t q = begin; q < end; ++q) solvers[slot]->solve(schedule.order[q], ahead);
      solvers[slot]->flush();
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
