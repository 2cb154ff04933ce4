// Eigenvalues and eigenvectors of symmetric matrices, the CUDA side of cpu/kernels/eigh.cpp: Jacobi rotations in the
// same order. A round rotates n / 2 pairs of rows and columns that have none in common: a thread makes the angle of a
// pair; then a thread turns the 2 x 2 block where two pairs cross, from both sides, and the block that mirrors it.
#pragma once
#include "cuda/kernels/linalg_team.cuh"

namespace topknot::cuda {

template <class T>
struct EighWork {
  using Number = T;
  const T* a;
  T *values, *vectors;
  int32_t* status;
  int64_t n;

  /// The matrix, the rotations made so far (a vector in each row), cosines and sines.
  int64_t elements() const { return 2 * n * (n | 1) + 2 * (n / 2 + 1); }

  template <class Offset>
  struct Parts {
    T *a, *vt, *cos, *sin;
    Offset ld;
    int n;

    __device__ T& at(int i, int j) const { return a[i * ld + j]; }
  };

  template <class Team>
  __device__ void operator()(const Team& team, int64_t m, T* memory) const {
    using Offset = typename Team::Offset;
    const int side = static_cast<int>(n), lane = team.thread() % 32;
    const Offset ld = static_cast<Offset>(side | 1), square = static_cast<Offset>(side) * side;
    T* vt = memory + side * ld;
    T* cosines = vt + side * ld;
    const Parts<typename Team::Offset> p{memory, vt, cosines, cosines + side / 2 + 1, ld, side};
    const T* in = a + m * n * n;
    bool bad = false;
    T largest = 0, squares = 0;  // every warp looks at all of them: that saves barriers
    for (Offset e = lane; e < square; e += 32) {
      if (e % side > e / side) continue;
      bad = bad || !isFinite(in[e]);
      largest = magnitude(in[e]) > largest ? magnitude(in[e]) : largest;
    }
    const T scale = scaleFor(maxOfWarp(largest));
    for (Offset e = lane; e < square; e += 32) {
      const int i = static_cast<int>(e / side), j = static_cast<int>(e % side);
      const T v = in[e] * scale;
      if (j <= i) squares = fused(v, i == j ? v : 2 * v, squares);
    }
    // What is left beside the diagonal has at most a rounding error of the norm of the matrix.
    const T tolerance = root(sumOfWarp(squares)) * (std::numeric_limits<T>::epsilon() / 2) / static_cast<T>(side);
    for (Offset e = team.thread(); e < square; e += team.size()) {
      const int i = static_cast<int>(e / side), j = static_cast<int>(e % side);
      vt[i * ld + j] = i == j ? 1 : 0;
      if (j <= i) p.at(i, j) = p.at(j, i) = in[e] * scale;
    }
    bad = team.any(bad);
    bool rotated = !bad && side > 1;
    const int players = side + side % 2;
    for (int sweep = 0; rotated && sweep < mostSweeps; ++sweep) {
      rotated = false;
      for (int r = 0; r < players - 1; ++r) {
        bool any = false;
        for (int i = team.thread(); i < players / 2; i += team.size()) {
          any = prepare(p, i, pairOf(players, r, i), tolerance) || any;
        }
        if (!team.any(any)) continue;
        rotated = true;
        turn(team, p, players, r);
        team.sync();
      }
    }
    store(team, p, m, scale, bad, rotated);
  }

 private:
  /// The angle that makes a_pq zero, Golub and Van Loan, "Matrix computations", 8.5.2; the 2 x 2 block on the diagonal.
  /// False where it is zero already.
  template <class P>
  __device__ bool prepare(const P& p, int i, Pair pair, T tolerance) const {
    const T pq = pair.q < p.n ? p.at(pair.p, pair.q) : T{0};  // n is odd: row p has no partner
    const bool needed = magnitude(pq) > tolerance;
    T c = 1, s = 0;
    if (needed) {
      T &pp = p.at(pair.p, pair.p), &qq = p.at(pair.q, pair.q);
      const T theta = (qq - pp) / (2 * pq), size = 1 / (magnitude(theta) + root(fused(theta, theta, T{1})));
      const T tangent = theta < 0 ? -size : size;
      c = 1 / root(fused(tangent, tangent, T{1}));
      s = tangent * c;
      pp = fused(-tangent, pq, pp);
      qq = fused(tangent, pq, qq);
      p.at(pair.p, pair.q) = p.at(pair.q, pair.p) = 0;
    }
    p.cos[i] = c;
    p.sin[i] = s;
    return needed;
  }

  /// (x, y) becomes (c x - s y, s x + c y).
  static __device__ void rotate(T c, T s, T& x, T& y) {
    const T kept = x;
    x = fused(-s, y, c * x);
    y = fused(s, kept, c * y);
  }

  template <class Team, class P>
  __device__ void turn(const Team& team, const P& p, int players, int round) const {
    using Offset = typename Team::Offset;
    const int pairs = players / 2;
    // The pairs i and i + 1 + e / pairs around a circle: each two meet once, or twice where they face each other.
    for (int e = team.thread(); e < pairs * (pairs / 2); e += team.size()) {
      const int far = e / pairs + 1, i = e % pairs, j = (i + far) % pairs;
      if (2 * far == pairs && j < i) continue;
      const bool before = i < j;
      turnBlock(p, pairOf(players, round, before ? j : i), before ? j : i, pairOf(players, round, before ? i : j),
                before ? i : j);
    }
    for (Offset e = team.thread(); e < static_cast<Offset>(pairs) * p.n; e += team.size()) {
      const int i = static_cast<int>(e / p.n), j = static_cast<int>(e % p.n);
      const Pair rows = pairOf(players, round, i);
      if (rows.q < p.n) rotate(p.cos[i], p.sin[i], p.vt[rows.p * p.ld + j], p.vt[rows.q * p.ld + j]);
    }
  }

  /// The block of the rows of pair i and the columns of pair j.
  template <class P>
  __device__ void turnBlock(const P& p, Pair rows, int i, Pair cols, int j) const {
    const bool twoRows = rows.q < p.n, twoCols = cols.q < p.n;
    T pp = p.at(rows.p, cols.p), pq = twoCols ? p.at(rows.p, cols.q) : T{0};
    T qp = twoRows ? p.at(rows.q, cols.p) : T{0}, qq = twoRows && twoCols ? p.at(rows.q, cols.q) : T{0};
    rotate(p.cos[i], p.sin[i], pp, qp);
    rotate(p.cos[i], p.sin[i], pq, qq);
    rotate(p.cos[j], p.sin[j], pp, pq);
    rotate(p.cos[j], p.sin[j], qp, qq);
    p.at(rows.p, cols.p) = p.at(cols.p, rows.p) = pp;
    if (twoCols) p.at(rows.p, cols.q) = p.at(cols.q, rows.p) = pq;
    if (twoRows) p.at(rows.q, cols.p) = p.at(cols.p, rows.q) = qp;
    if (twoRows && twoCols) p.at(rows.q, cols.q) = p.at(cols.q, rows.q) = qq;
  }

  /// By rising values: each goes behind as many as are less. Equal ones stay in their order.
  template <class Team, class P>
  __device__ void store(const Team& team, const P& p, int64_t m, T scale, bool bad, bool rotated) const {
    using Offset = typename Team::Offset;
    T *outValues = values + m * n, *outVectors = vectors + m * n * n;
    bool overflow = false;
    for (int i = team.warp(); i < p.n && !bad; i += team.warps()) {
      const T value = p.at(i, i) / scale;
      int before = 0;
      for (int j = 0; j < p.n; ++j) {
        const T other = p.at(j, j) / scale;
        before += other < value || (other == value && j < i);
      }
      overflow = overflow || !isFinite(value);
      const int lane = team.thread() % 32;
      if (lane == 0) outValues[before] = value;
      for (int j = lane; j < p.n; j += 32)
        outVectors[static_cast<Offset>(j) * p.n + before] = p.vt[i * p.ld + j] + T{0};
    }
    bad = team.any(overflow) || bad;
    const int answer = bad ? notFinite : rotated ? notConverged : solved;
    if (answer != solved) {
      fillNan(team, outValues, n);
      fillNan(team, outVectors, n * n);
    }
    if (team.thread() == 0) status[m] = answer;
  }
};

/// The `eigh` slot.
inline Status eigh(const Exec& exec, const EighArgs& a) {
  Queue queue(exec);
  const auto of = [&]<class T>(T) {
    const EighWork<T> work{.a = static_cast<const T*>(a.a),
                           .values = static_cast<T*>(a.values),
                           .vectors = static_cast<T*>(a.vectors),
                           .status = a.status,
                           .n = a.n};
    launchTeams(queue, "eigh", work, a.batch, a.n, work.elements(), threadsOfTeam(a.n));
  };
  a.precision == Precision::float32 ? of(float{}) : of(double{});
  return queue.status();
}

}  // namespace topknot::cuda
