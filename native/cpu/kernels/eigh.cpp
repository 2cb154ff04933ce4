// Eigenvalues and eigenvectors of symmetric matrices. Small matrices lie one in each lane (lanes-inl.h) and are made
// diagonal by Jacobi rotations; others go to Eigen.
//
// A round rotates n / 2 pairs that have no row in common, so that their angles do not wait for each other; n - 1 rounds
// make a sweep. Sweeps go on until no lane has an element left to rotate away; a matrix that is done is not changed by
// further ones.
#include "cpu/kernels/guard.h"
#include "cpu/kernels/linalg_batch.h"
#include "cpu/kernels/linalg_eigen.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/eigh.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// N symmetric matrices in the working memory of a thread.
template <class T>
class Jacobi {
  static constexpr LaneTag<T> d{};
  static constexpr int64_t N = laneCount<T>;
  using V = LaneVec<T>;

 public:
  static int64_t memory(int64_t n) { return (2 * n * (n | 1) + 2 * (n + 1) + 4) * N; }

  Jacobi(T* at, int64_t rows) : n_(rows), ld_(rows | 1) {
    a_ = at;
    vt_ = a_ + n_ * ld_ * N;
    cos_ = vt_ + n_ * ld_ * N;
    sin_ = cos_ + (n_ + 1) * N;
    scale = sin_ + (n_ + 1) * N;
    bad = scale + N;
    unfinished = bad + N;
    tolerance_ = unfinished + N;
  }

  T *scale, *bad, *unfinished;  // [N]

  T value(int64_t i, int64_t lane) const { return a(i, i)[lane] / scale[lane]; }
  T element(int64_t vector, int64_t i, int64_t lane) const { return vt(vector, i)[lane] + T{0}; }  // -0 becomes 0

  void load(const T* in, int64_t matrices) {
    for (int64_t i = 0; i < n_; ++i) {
      interleave(in + i * n_, n_ * n_, matrices, i + 1, a(i, 0));
      for (int64_t j = 0; j < i; ++j) hn::Store(hn::Load(d, a(i, j)), d, a(j, i));
      for (int64_t j = n_; j < ld_; ++j) hn::Store(hn::Zero(d), d, a(i, j));
      for (int64_t j = 0; j < n_; ++j) hn::Store(hn::Set(d, i == j ? T{1} : T{0}), d, vt(i, j));
    }
    hn::Store(notFiniteLanes(a_, n_ * ld_), d, bad);
    scaleLanes(a_, n_ * ld_, scale);
    V squares = hn::Zero(d);
    for (int64_t i = 0; i < n_ * ld_; ++i) {
      const V x = hn::Load(d, a_ + i * N);
      squares = hn::MulAdd(x, x, squares);
    }
    // What is left beside the diagonal has at most a rounding error of the norm of the matrix.
    constexpr T rounding = std::numeric_limits<T>::epsilon() / 2;
    hn::Store(hn::Mul(hn::Sqrt(squares), hn::Set(d, rounding / static_cast<T>(std::max<int64_t>(n_, 1)))), d,
              tolerance_);
  }

  void run() {
    hn::Store(hn::Zero(d), d, unfinished);
    const int64_t players = n_ + n_ % 2;
    bool rotated = n_ > 1;
    for (int sweep = 0; rotated && sweep < mostSweeps; ++sweep) {
      hn::Store(hn::Zero(d), d, unfinished);
      rotated = false;
      for (int64_t r = 0; r < players - 1; ++r) rotated |= round(players, r);
    }
  }

 private:
  T* a(int64_t i, int64_t j) const { return a_ + (i * ld_ + j) * N; }
  T* vt(int64_t i, int64_t j) const { return vt_ + (i * ld_ + j) * N; }

  /// (x, y) becomes (c x - s y, s x + c y).
  static HWY_INLINE void rotate(V c, V s, V& x, V& y) {
    const V kept = x;
    x = hn::NegMulAdd(s, y, hn::Mul(c, x));
    y = hn::MulAdd(s, kept, hn::Mul(c, y));
  }

  /// The angle that makes a_pq zero, Golub and Van Loan, "Matrix computations", 8.5.2; the 2 x 2 block on the diagonal.
  bool prepare(int64_t i, Pair pair) {
    const V one = hn::Set(d, T{1}), pp = hn::Load(d, a(pair.p, pair.p)), qq = hn::Load(d, a(pair.q, pair.q));
    const V pq = hn::Load(d, a(pair.p, pair.q));
    const auto needed = hn::Gt(hn::Abs(pq), hn::Load(d, tolerance_));
    const V theta = hn::Div(hn::Sub(qq, pp), hn::IfThenElse(needed, hn::Add(pq, pq), one));
    const V root = hn::Add(hn::Abs(theta), hn::Sqrt(hn::MulAdd(theta, theta, one)));
    const V tangent = hn::IfThenElseZero(needed, hn::CopySign(hn::Div(one, root), theta));
    const V c = hn::Div(one, hn::Sqrt(hn::MulAdd(tangent, tangent, one)));
    hn::Store(c, d, cos_ + i * N);
    hn::Store(hn::Mul(tangent, c), d, sin_ + i * N);
    if (hn::AllFalse(d, needed)) return false;
    hn::Store(hn::NegMulAdd(tangent, pq, pp), d, a(pair.p, pair.p));
    hn::Store(hn::MulAdd(tangent, pq, qq), d, a(pair.q, pair.q));
    const V rest = hn::IfThenElse(needed, hn::Zero(d), pq);
    hn::Store(rest, d, a(pair.p, pair.q));
    hn::Store(rest, d, a(pair.q, pair.p));
    hn::Store(hn::IfThenElse(needed, one, hn::Load(d, unfinished)), d, unfinished);
    return true;
  }

  bool round(int64_t players, int64_t r) {
    bool any = false;
    const int64_t pairs = players / 2;
    for (int64_t i = 0; i < pairs; ++i) {
      const Pair pair = pairOf(players, r, i);
      if (pair.q < n_) {
        any |= prepare(i, pair);
      } else {  // n is odd and row p has no partner
        hn::Store(hn::Set(d, T{1}), d, cos_ + i * N);
        hn::Store(hn::Zero(d), d, sin_ + i * N);
      }
    }
    if (!any) return false;
    for (int64_t i = 0; i < pairs; ++i) {
      const Pair rows = pairOf(players, r, i);
      const V c = hn::Load(d, cos_ + i * N), s = hn::Load(d, sin_ + i * N);
      for (int64_t j = 0; j < i; ++j) rotateBlock(rows, c, s, pairOf(players, r, j), j);
      if (rows.q >= n_) continue;
      for (int64_t j = 0; j < n_; ++j) {
        V x = hn::Load(d, vt(rows.p, j)), y = hn::Load(d, vt(rows.q, j));
        rotate(c, s, x, y);
        hn::Store(x, d, vt(rows.p, j));
        hn::Store(y, d, vt(rows.q, j));
      }
    }
    return true;
  }

  /// The block of two pairs, from both sides, and the block that mirrors it.
  HWY_INLINE void rotateBlock(Pair rows, V c, V s, Pair cols, int64_t j) {
    const bool twoRows = rows.q < n_, twoCols = cols.q < n_;
    const V cj = hn::Load(d, cos_ + j * N), sj = hn::Load(d, sin_ + j * N), zero = hn::Zero(d);
    V pp = hn::Load(d, a(rows.p, cols.p)), pq = twoCols ? hn::Load(d, a(rows.p, cols.q)) : zero;
    V qp = twoRows ? hn::Load(d, a(rows.q, cols.p)) : zero;
    V qq = twoRows && twoCols ? hn::Load(d, a(rows.q, cols.q)) : zero;
    rotate(c, s, pp, qp);
    rotate(c, s, pq, qq);
    rotate(cj, sj, pp, pq);
    rotate(cj, sj, qp, qq);
    put(rows.p, cols.p, pp);
    if (twoCols) put(rows.p, cols.q, pq);
    if (twoRows) put(rows.q, cols.p, qp);
    if (twoRows && twoCols) put(rows.q, cols.q, qq);
  }
  HWY_INLINE void put(int64_t i, int64_t j, V x) {
    hn::Store(x, d, a(i, j));
    hn::Store(x, d, a(j, i));
  }

  int64_t n_, ld_;
  T *a_, *vt_, *cos_, *sin_, *tolerance_;
};

template <class T>
void eighLanes(const Exec& exec, const EighArgs& args) {
  constexpr int64_t N = laneCount<T>;
  const int64_t n = args.n;
  SlotMemory<T> memory(Jacobi<T>::memory(n));
  forEachGroup(exec, args.batch, N, 60 * n * n * n, [&](int64_t first, int64_t matrices, int slot) {
    Jacobi<T> jacobi(memory.of(slot), n);
    jacobi.load(static_cast<const T*>(args.a) + first * n * n, matrices);
    jacobi.run();
    for (int64_t m = 0; m < matrices; ++m) {
      T *values = static_cast<T*>(args.values) + (first + m) * n,
        *vectors = static_cast<T*>(args.vectors) + (first + m) * n * n;
      int64_t order[mostLaneRows];
      for (int64_t i = 0; i < n; ++i) {  // by insertion: equal values stay in their order
        int64_t at = i;
        for (; at > 0 && jacobi.value(order[at - 1], m) > jacobi.value(i, m); --at) order[at] = order[at - 1];
        order[at] = i;
      }
      for (int64_t j = 0; j < n; ++j) {
        values[j] = jacobi.value(order[j], m);
        for (int64_t i = 0; i < n; ++i) vectors[i * n + j] = jacobi.element(order[j], i, m);
      }
      int32_t& status = args.status[first + m] = jacobi.unfinished[m] != 0 ? notConverged : solved;
      if (jacobi.bad[m] != 0 || !allFinite(values, n)) status = notFinite;
      if (status == solved) continue;
      fillNan(values, n);
      fillNan(vectors, n * n);
    }
  });
}

template <class T>
void eighLarge(const Exec& exec, const EighArgs& args) {
  const int64_t n = args.n;
  parallelFor(args.batch, 1, exec, [&](int64_t m, int64_t, int) {
    T *values = static_cast<T*>(args.values) + m * n, *vectors = static_cast<T*>(args.vectors) + m * n * n;
    args.status[m] = EigenLinalg<T>::eigh(static_cast<const T*>(args.a) + m * n * n, n, values, vectors);
    if (args.status[m] == solved) return;
    fillNan(values, n);
    fillNan(vectors, n * n);
  });
}

template <class T>
void eighOf(const Exec& exec, const EighArgs& a) {
  a.n <= mostLaneRows ? eighLanes<T>(exec, a) : eighLarge<T>(exec, a);
}

}  // namespace

Status eigh(const Exec& exec, const EighArgs& a) {
  return guard([&] { a.precision == Precision::float32 ? eighOf<float>(exec, a) : eighOf<double>(exec, a); });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
