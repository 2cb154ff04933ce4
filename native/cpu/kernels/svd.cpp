// Thin singular value decompositions. Small matrices lie one in each lane (lanes-inl.h) and are decomposed by one-sided
// Jacobi rotations (Hestenes 1958); others go to Eigen.
//
// Rotations from the right make the columns of a tall matrix orthogonal; their lengths are the singular values, the
// columns over their lengths are u, and the product of the rotations is v. A wide matrix is decomposed as its
// transpose. Sweeps go on until no lane has a pair left to rotate; a matrix that is done is not changed by further
// ones.
#include "cpu/kernels/guard.h"
#include "cpu/kernels/linalg_batch.h"
#include "cpu/kernels/linalg_eigen.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/svd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// N matrices of `k` columns with `rows` >= k elements in the working memory of a thread; the columns lie one after the
/// other.
template <class T>
class OneSided {
  static constexpr LaneTag<T> d{};
  static constexpr int64_t N = laneCount<T>;
  using V = LaneVec<T>;
  /// Columns shorter than this part of the largest element count as zero: their squares would vanish. Far below
  /// rounding.
  static constexpr T negligible = sizeof(T) == 4 ? T(1e-12) : T(1e-100);

 public:
  static int64_t memory(int64_t rows, int64_t k) { return (2 * rows * k + k * k + 3) * N; }

  OneSided(T* at, int64_t rows, int64_t k) : rows_(rows), k_(k) {
    w_ = at;
    vt_ = w_ + rows * k * N;
    loaded_ = vt_ + k * k * N;
    scale = loaded_ + rows * k * N;
    bad = scale + N;
    unfinished = bad + N;
  }

  T *scale, *bad, *unfinished;  // [N]

  T w(int64_t col, int64_t i, int64_t lane) const { return column(col)[i * N + lane] + T{0}; }  // -0 becomes 0
  T vt(int64_t col, int64_t i, int64_t lane) const { return rotations(col)[i * N + lane] + T{0}; }

  /// Matrices [rows, k], or [k, rows] where they are wide.
  void load(const T* in, int64_t matrices, bool wide) {
    const int64_t count = rows_ * k_;
    interleave(in, count, matrices, count, wide ? w_ : loaded_);
    for (int64_t c = 0; !wide && c < k_; ++c) {
      for (int64_t i = 0; i < rows_; ++i) hn::Store(hn::Load(d, loaded_ + (i * k_ + c) * N), d, column(c) + i * N);
    }
    for (int64_t c = 0; c < k_; ++c) {
      for (int64_t i = 0; i < k_; ++i) hn::Store(hn::Set(d, i == c ? T{1} : T{0}), d, rotations(c) + i * N);
    }
    hn::Store(notFiniteLanes(w_, count), d, bad);
    scaleLanes(w_, count, scale);
  }

  void run() {
    hn::Store(hn::Zero(d), d, unfinished);
    const int64_t players = k_ + k_ % 2;
    bool rotated = k_ > 1;
    for (int sweep = 0; rotated && sweep < mostSweeps; ++sweep) {
      hn::Store(hn::Zero(d), d, unfinished);
      rotated = false;
      for (int64_t r = 0; r < players - 1; ++r) {
        for (int64_t i = 0; i < players / 2; ++i) {
          const Pair pair = pairOf(players, r, i);
          if (pair.q < k_) rotated |= rotate(pair);
        }
      }
    }
  }

  /// The length of a column; 0 where it is negligible.
  T length(int64_t col, int64_t lane) const {
    T sum = 0;
    for (int64_t i = 0; i < rows_; ++i) sum += w(col, i, lane) * w(col, i, lane);
    sum = std::sqrt(sum);
    return sum > negligible ? sum : T{0};
  }

 private:
  T* column(int64_t c) const { return w_ + c * rows_ * N; }
  T* rotations(int64_t c) const { return vt_ + c * k_ * N; }

  /// Rotates two columns until they are orthogonal. False where no lane needs it.
  bool rotate(Pair pair) {
    T *x = column(pair.p), *y = column(pair.q);
    V xx = hn::Zero(d), yy = xx, xy = xx;
    for (int64_t i = 0; i < rows_ * N; i += N) {
      const V a = hn::Load(d, x + i), b = hn::Load(d, y + i);
      xx = hn::MulAdd(a, a, xx), yy = hn::MulAdd(b, b, yy), xy = hn::MulAdd(a, b, xy);
    }
    // Orthogonal up to the rounding of a sum over the rows.
    const V tolerance = hn::Set(d, std::numeric_limits<T>::epsilon() * std::sqrt(static_cast<T>(rows_)));
    const V one = hn::Set(d, T{1}), least = hn::Set(d, negligible);
    const V a = hn::Sqrt(xx), b = hn::Sqrt(yy);
    const auto nonzero = hn::And(hn::Gt(a, least), hn::Gt(b, least));
    const V cosine = hn::Div(xy, hn::IfThenElse(nonzero, hn::Mul(a, b), one));
    const auto needed = hn::And(nonzero, hn::Gt(hn::Abs(cosine), tolerance));
    if (hn::AllFalse(d, needed)) return false;
    // tan of the angle by (yy - xx) / 2 xy, from lengths, whose squares may be far apart.
    const V safeA = hn::IfThenElse(nonzero, a, one), safeB = hn::IfThenElse(nonzero, b, one);
    const V theta = hn::Div(hn::Sub(hn::Div(safeB, safeA), hn::Div(safeA, safeB)),
                            hn::IfThenElse(needed, hn::Add(cosine, cosine), one));
    const V root = hn::Add(hn::Abs(theta), hn::Sqrt(hn::MulAdd(theta, theta, one)));
    const V tangent = hn::IfThenElseZero(needed, hn::CopySign(hn::Div(one, root), theta));
    const V c = hn::Div(one, hn::Sqrt(hn::MulAdd(tangent, tangent, one))), s = hn::Mul(tangent, c);
    turn(x, y, c, s, rows_);
    turn(rotations(pair.p), rotations(pair.q), c, s, k_);
    hn::Store(hn::IfThenElse(needed, one, hn::Load(d, unfinished)), d, unfinished);
    return true;
  }

  /// (x, y) becomes (c x - s y, s x + c y).
  static HWY_INLINE void turn(T* x, T* y, V c, V s, int64_t count) {
    for (int64_t i = 0; i < count * N; i += N) {
      const V a = hn::Load(d, x + i), b = hn::Load(d, y + i);
      hn::Store(hn::NegMulAdd(s, b, hn::Mul(c, a)), d, x + i);
      hn::Store(hn::MulAdd(s, a, hn::Mul(c, b)), d, y + i);
    }
  }

  int64_t rows_, k_;
  T *w_, *vt_, *loaded_;
};

/// Makes row j of q [j + 1, count], whose rows before are orthonormal, another unit vector orthogonal to them: what is
/// left of the unit vector that they cover least.
template <class T>
void complete(T* q, int64_t j, int64_t count) {
  int64_t best = 0;
  T least = 2;
  for (int64_t i = 0; i < count; ++i) {
    T covered = 0;
    for (int64_t r = 0; r < j; ++r) covered += q[r * count + i] * q[r * count + i];
    if (covered < least) least = covered, best = i;
  }
  T* x = q + j * count;
  std::fill_n(x, count, T{0});
  x[best] = 1;
  for (int pass = 0; pass < 2; ++pass) {  // the second makes up for the rounding of the first
    for (int64_t r = 0; r < j; ++r) {
      T dot = 0;
      for (int64_t i = 0; i < count; ++i) dot += q[r * count + i] * x[i];
      for (int64_t i = 0; i < count; ++i) x[i] -= dot * q[r * count + i];
    }
    T norm = 0;
    for (int64_t i = 0; i < count; ++i) norm += x[i] * x[i];
    norm = std::sqrt(norm);
    for (int64_t i = 0; i < count; ++i) x[i] /= norm;
  }
}

/// in [rows, cols] to out [cols, rows].
template <class T>
void transposeInto(const T* in, int64_t rows, int64_t cols, T* out) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) out[j * rows + i] = in[i * cols + j];
  }
}

/// The decomposition of one lane by falling values: `values` [k], left [k, rows] and right [k, k], a vector in each
/// row.
template <class T>
void sortedTriples(const OneSided<T>& made, int64_t lane, int64_t rows, int64_t k, T* values, T* left, T* right) {
  T lengths[mostLaneRows];
  int64_t order[mostLaneRows];
  for (int64_t c = 0; c < k; ++c) {  // by insertion: equal values stay in their order
    lengths[c] = made.length(c, lane);
    int64_t at = c;
    for (; at > 0 && lengths[order[at - 1]] < lengths[c]; --at) order[at] = order[at - 1];
    order[at] = c;
  }
  for (int64_t j = 0; j < k; ++j) {
    const int64_t c = order[j];
    values[j] = lengths[c] / made.scale[lane];
    for (int64_t i = 0; i < k; ++i) right[j * k + i] = made.vt(c, i, lane);
    if (lengths[c] > 0) {
      for (int64_t i = 0; i < rows; ++i) left[j * rows + i] = made.w(c, i, lane) / lengths[c];
    } else {
      complete(left, j, rows);
    }
  }
}

template <class T>
void svdLanes(const Exec& exec, const SvdArgs& args) {
  constexpr int64_t N = laneCount<T>;
  const int64_t m = args.m, n = args.n, rows = std::max(m, n), k = std::min(m, n);
  const bool wide = m < n;
  SlotMemory<T> memory(OneSided<T>::memory(rows, k) + rows * k + k * k);
  forEachGroup(exec, args.batch, N, 60 * rows * k * k, [&](int64_t first, int64_t matrices, int slot) {
    OneSided<T> made(memory.of(slot), rows, k);
    T *left = memory.of(slot) + OneSided<T>::memory(rows, k), *right = left + rows * k;
    made.load(static_cast<const T*>(args.a) + first * m * n, matrices, wide);
    made.run();
    for (int64_t i = 0; i < matrices; ++i) {
      T *u = static_cast<T*>(args.u) + (first + i) * m * k, *values = static_cast<T*>(args.values) + (first + i) * k;
      T* vt = static_cast<T*>(args.vt) + (first + i) * k * n;
      int32_t& status = args.status[first + i] = made.unfinished[i] != 0 ? notConverged : solved;
      if (made.bad[i] != 0) status = notFinite;
      if (status == solved) {
        sortedTriples(made, i, rows, k, values, left, right);
        transposeInto(wide ? right : left, k, m, u);
        std::copy_n(wide ? left : right, k * n, vt);
        if (!allFinite(values, k)) status = notFinite;
      }
      if (status == solved) continue;
      fillNan(u, m * k);
      fillNan(values, k);
      fillNan(vt, k * n);
    }
  });
}

template <class T>
void svdLarge(const Exec& exec, const SvdArgs& args) {
  const int64_t m = args.m, n = args.n, k = std::min(m, n);
  parallelFor(args.batch, 1, exec, [&](int64_t i, int64_t, int) {
    T *u = static_cast<T*>(args.u) + i * m * k, *values = static_cast<T*>(args.values) + i * k;
    T* vt = static_cast<T*>(args.vt) + i * k * n;
    args.status[i] = EigenLinalg<T>::svd(static_cast<const T*>(args.a) + i * m * n, m, n, u, values, vt);
    if (args.status[i] == solved) return;
    fillNan(u, m * k);
    fillNan(values, k);
    fillNan(vt, k * n);
  });
}

template <class T>
void svdOf(const Exec& exec, const SvdArgs& a) {
  a.m <= mostLaneRows&& a.n <= mostLaneRows ? svdLanes<T>(exec, a) : svdLarge<T>(exec, a);
}

}  // namespace

Status svd(const Exec& exec, const SvdArgs& a) {
  return guard([&] { a.precision == Precision::float32 ? svdOf<float>(exec, a) : svdOf<double>(exec, a); });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
