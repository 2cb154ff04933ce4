// Thin singular value decompositions, the CUDA side of cpu/kernels/svd.cpp: one-sided Jacobi rotations (Hestenes 1958)
// in the same order. A warp takes a pair of columns; the pairs of a round have no column in common. A wide matrix is
// decomposed as its transpose.
#pragma once
#include "cuda/kernels/linalg_team.cuh"

namespace topknot::cuda {

template <class T>
struct SvdWork {
  using Number = T;
  const T* a;
  T *u, *values, *vt;
  int32_t* status;
  int64_t m, n, rows, k;  // rows and k: the longer and the shorter of m and n

  /// The columns, the rotations, a length and a number for each column, and a sum for each.
  int64_t elements() const { return k * (rows | 1) + k * (k | 1) + 3 * k; }

  /// Columns shorter than this part of the largest element count as zero: their squares would vanish.
  static constexpr T negligible = sizeof(T) == 4 ? T(1e-12) : T(1e-100);

  template <class Offset>
  struct Parts {
    Columns<T, Offset> w, v;
    T *lengths, *sums;
    int* order;  // of the columns by falling length
    int rows, k;
  };

  template <class Team>
  __device__ void operator()(const Team& team, int64_t matrix, T* memory) const {
    using Offset = typename Team::Offset;
    const int side = static_cast<int>(k), lane = team.thread() % 32;
    const Offset ldw = static_cast<Offset>(rows | 1), ldv = static_cast<Offset>(k | 1),
                 count = static_cast<Offset>(m * n);
    Parts<Offset> p{{memory, ldw}, {memory + side * ldw, ldv}, nullptr, nullptr, nullptr, static_cast<int>(rows), side};
    p.lengths = memory + side * ldw + side * ldv;
    p.sums = p.lengths + side;
    p.order = reinterpret_cast<int*>(p.sums + side);
    const T* in = a + matrix * m * n;
    bool bad = false;
    T largest = 0;  // every warp looks at all of them: that saves barriers
    for (Offset e = lane; e < count; e += 32) {
      bad = bad || !isFinite(in[e]);
      largest = magnitude(in[e]) > largest ? magnitude(in[e]) : largest;
    }
    const T scale = scaleFor(maxOfWarp(largest));
    for (Offset e = team.thread(); e < count; e += team.size()) {
      const int i = static_cast<int>(e / static_cast<Offset>(n)), j = static_cast<int>(e % static_cast<Offset>(n));
      (m < n ? p.w.at(j, i) : p.w.at(i, j)) = in[e] * scale;
    }
    for (Offset e = team.thread(); e < static_cast<Offset>(side) * side; e += team.size()) {
      const int i = static_cast<int>(e / side), j = static_cast<int>(e % side);
      p.v.at(i, j) = i == j ? 1 : 0;
    }
    bad = team.any(bad);
    const int players = side + side % 2;
    bool rotated = !bad && side > 1;
    for (int sweep = 0; rotated && sweep < mostSweeps; ++sweep) {
      rotated = false;
      for (int r = 0; r < players - 1; ++r) {
        for (int i = team.warp(); i < players / 2; i += team.warps()) {
          const Pair pair = pairOf(players, r, i);
          if (pair.q < side) rotated = rotate(p, pair, lane) || rotated;
        }
        team.sync();
      }
      rotated = team.any(rotated);
    }
    if (!bad) finish(team, p);
    store(team, p, matrix, scale, bad, rotated);
  }

 private:
  /// Rotates two columns until they are orthogonal, by a warp. False where they are.
  template <class P>
  __device__ bool rotate(const P& p, Pair pair, int lane) const {
    T *x = p.w.column(pair.p), *y = p.w.column(pair.q);
    T xx = 0, yy = 0, xy = 0;
    for (int i = lane; i < p.rows; i += 32) {
      xx = fused(x[i], x[i], xx), yy = fused(y[i], y[i], yy), xy = fused(x[i], y[i], xy);
    }
    const T left = root(sumOfWarp(xx)), right = root(sumOfWarp(yy)), product = sumOfWarp(xy);
    if (!(left > negligible && right > negligible)) return false;
    // Orthogonal up to the rounding of a sum over the rows.
    const T tolerance = std::numeric_limits<T>::epsilon() * root(static_cast<T>(p.rows));
    const T cosine = product / (left * right);
    if (!(magnitude(cosine) > tolerance)) return false;
    // tan of the angle by (yy - xx) / 2 xy, from lengths, whose squares may be far apart.
    const T theta = (right / left - left / right) / (2 * cosine);
    const T size = 1 / (magnitude(theta) + root(fused(theta, theta, T{1}))), tangent = theta < 0 ? -size : size;
    const T c = 1 / root(fused(tangent, tangent, T{1})), s = tangent * c;
    turn(x, y, c, s, p.rows, lane);
    turn(p.v.column(pair.p), p.v.column(pair.q), c, s, p.k, lane);
    return true;
  }

  /// (x, y) becomes (c x - s y, s x + c y).
  static __device__ void turn(T* x, T* y, T c, T s, int count, int lane) {
    for (int i = lane; i < count; i += 32) {
      const T left = x[i], right = y[i];
      x[i] = fused(-s, right, c * left);
      y[i] = fused(s, left, c * right);
    }
  }

  /// Lengths, the order of the columns by them, and columns of length 1.
  template <class Team, class P>
  __device__ void finish(const Team& team, const P& p) const {
    const int lane = team.thread() % 32;
    for (int c = team.warp(); c < p.k; c += team.warps()) {
      T* w = p.w.column(c);
      T sum = 0;
      for (int i = lane; i < p.rows; i += 32) sum = fused(w[i], w[i], sum);
      sum = root(sumOfWarp(sum));
      const T length = sum > negligible ? sum : T{0};
      for (int i = lane; i < p.rows && length > 0; i += 32) w[i] /= length;
      if (lane == 0) p.lengths[c] = length;
    }
    team.sync();
    for (int c = team.thread(); c < p.k; c += team.size()) {
      int before = 0;
      for (int j = 0; j < p.k; ++j) before += p.lengths[j] > p.lengths[c] || (p.lengths[j] == p.lengths[c] && j < c);
      p.order[before] = c;
    }
    team.sync();
    for (int j = 0; j < p.k; ++j) {
      if (p.lengths[p.order[j]] == 0) complete(team, p, j);
    }
  }

  /// Makes the column of rank j, those before it being orthonormal, another unit vector orthogonal to them: what is
  /// left of the unit vector that they cover least.
  template <class Team, class P>
  __device__ void complete(const Team& team, const P& p, int j) const {
    const int lane = team.thread() % 32;
    T least = 2;  // every warp looks at all of them: that saves barriers
    int best = p.rows;
    for (int i = lane; i < p.rows; i += 32) {
      T covered = 0;
      for (int r = 0; r < j; ++r) covered = fused(p.w.at(i, p.order[r]), p.w.at(i, p.order[r]), covered);
      if (covered < least) least = covered, best = i;
    }
    for (int distance = 16; distance > 0; distance /= 2) {
      const T other = __shfl_xor_sync(allLanes, least, distance);
      const int at = __shfl_xor_sync(allLanes, best, distance);
      if (other < least || (other == least && at < best)) least = other, best = at;
    }
    T* x = p.w.column(p.order[j]);
    for (int i = team.thread(); i < p.rows; i += team.size()) x[i] = i == best ? 1 : 0;
    team.sync();
    for (int pass = 0; pass < 2; ++pass) {  // the second makes up for the rounding of the first
      for (int r = team.warp(); r < j; r += team.warps()) {
        const T* q = p.w.column(p.order[r]);
        T dot = 0;
        for (int i = lane; i < p.rows; i += 32) dot = fused(q[i], x[i], dot);
        dot = sumOfWarp(dot);
        if (lane == 0) p.sums[r] = dot;
      }
      team.sync();
      for (int i = team.thread(); i < p.rows; i += team.size()) {
        T v = x[i];
        for (int r = 0; r < j; ++r) v = fused(-p.sums[r], p.w.at(i, p.order[r]), v);
        x[i] = v;
      }
      team.sync();
    }
    T sum = 0;
    for (int i = lane; i < p.rows; i += 32) sum = fused(x[i], x[i], sum);
    sum = root(sumOfWarp(sum));
    team.sync();  // all have read it
    for (int i = team.thread(); i < p.rows; i += team.size()) x[i] /= sum;
    team.sync();
  }

  template <class Team, class P>
  __device__ void store(const Team& team, const P& p, int64_t matrix, T scale, bool bad, bool rotated) const {
    using Offset = typename Team::Offset;
    T *outU = u + matrix * m * k, *outValues = values + matrix * k, *outVt = vt + matrix * k * n;
    // left [rows, k] and right [k, k], a vector in each column; swapped where the matrix is wide.
    const auto& left = m < n ? p.v : p.w;
    const auto& right = m < n ? p.w : p.v;
    const bool fails = bad || rotated;
    bool overflow = false;
    for (int j = team.thread(); j < p.k && !fails; j += team.size()) {
      const T value = p.lengths[p.order[j]] / scale;
      outValues[j] = value;
      overflow = overflow || !isFinite(value);
    }
    for (Offset e = team.thread(); e < static_cast<Offset>(m * k) && !fails; e += team.size()) {
      outU[e] = left.at(static_cast<int>(e / p.k), p.order[e % p.k]) + T{0};  // -0 becomes 0
    }
    for (Offset e = team.thread(); e < static_cast<Offset>(k * n) && !fails; e += team.size()) {
      const Offset cols = static_cast<Offset>(n);
      outVt[e] = right.at(static_cast<int>(e % cols), p.order[e / cols]) + T{0};
    }
    bad = team.any(overflow) || bad;
    const int answer = bad ? notFinite : rotated ? notConverged : solved;
    if (answer != solved) {
      fillNan(team, outU, m * k);
      fillNan(team, outValues, k);
      fillNan(team, outVt, k * n);
    }
    if (team.thread() == 0) status[matrix] = answer;
  }
};

/// The `svd` slot.
inline Status svd(const Exec& exec, const SvdArgs& a) {
  Queue queue(exec);
  const bool wide = a.m < a.n;
  const auto of = [&]<class T>(T) {
    const SvdWork<T> work{.a = static_cast<const T*>(a.a),
                          .u = static_cast<T*>(a.u),
                          .values = static_cast<T*>(a.values),
                          .vt = static_cast<T*>(a.vt),
                          .status = a.status,
                          .m = a.m,
                          .n = a.n,
                          .rows = wide ? a.n : a.m,
                          .k = wide ? a.m : a.n};
    launchTeams(queue, "svd", work, a.batch, work.k, work.elements(), threadsOfTeam(work.k));
  };
  a.precision == Precision::float32 ? of(float{}) : of(double{});
  return queue.status();
}

}  // namespace topknot::cuda
