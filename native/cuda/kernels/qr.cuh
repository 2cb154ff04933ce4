// Thin QR by Householder reflections, the CUDA side of cpu/kernels/qr.cpp: one warp makes the reflection of a column,
// then every warp applies it to columns of its own. The columns of q do not wait for each other: a warp takes the unit
// vector through all reflections.
#pragma once
#include "cuda/kernels/linalg_team.cuh"

namespace topknot::cuda {

template <class T>
struct QrWork {
  using Number = T;
  const T* a;
  T *q, *r;
  int32_t* status;
  int64_t m, n, k;
  int stride;  // of columns
  int warps;   // of a team

  /// The matrix, a factor for each reflection, a column for each warp.
  int64_t elements() const { return n * stride + k + warps * m; }

  template <class Team>
  __device__ void operator()(const Team& team, int64_t matrix, T* memory) const {
    using Offset = typename Team::Offset;
    const Columns<T, Offset> c{memory, stride};
    T* taus = memory + static_cast<Offset>(n) * stride;
    const int rows = static_cast<int>(m), cols = static_cast<int>(n), reflections = static_cast<int>(k);
    const int lane = team.thread() % 32, warp = team.warp();
    T* x = taus + k + static_cast<Offset>(warp) * rows;
    const Offset count = static_cast<Offset>(m * n);
    const T* in = a + matrix * m * n;
    bool bad = false;
    T largest = 0;  // every warp looks at all of them: that saves barriers
    for (Offset e = lane; e < count; e += 32) {
      const T v = in[e];
      bad = bad || !isFinite(v);
      largest = magnitude(v) > largest ? magnitude(v) : largest;
    }
    const T scale = scaleFor(maxOfWarp(largest));
    for (Offset e = team.thread(); e < count; e += team.size()) {
      c.at(static_cast<int>(e / cols), static_cast<int>(e % cols)) = in[e] * scale;
    }
    bad = team.any(bad);
    for (int j = 0; j < reflections && !bad; ++j) {
      if (warp == 0) {
        const T tau = makeReflection(c.column(j), j, rows, lane);
        if (lane == 0) taus[j] = tau;
      }
      team.sync();
      for (int i = j + 1 + warp; i < cols; i += team.warps()) reflect(c.column(j), taus[j], j, rows, c.column(i), lane);
      team.sync();
    }
    T* outQ = q + matrix * m * k;
    for (int j = warp; j < reflections && !bad; j += team.warps()) {
      for (int i = lane; i < rows; i += 32) x[i] = i == j ? 1 : 0;
      for (int i = j; i >= 0; --i) reflect(c.column(i), taus[i], i, rows, x, lane);
      for (int i = lane; i < rows; i += 32) outQ[static_cast<Offset>(i) * reflections + j] = x[i];
    }
    T* outR = r + matrix * k * n;
    bool overflow = false;
    for (Offset e = team.thread(); e < static_cast<Offset>(k * n) && !bad; e += team.size()) {
      const int i = static_cast<int>(e / cols), j = static_cast<int>(e % cols);
      const T v = j < i ? T{0} : c.at(i, j) * (1 / scale);
      outR[e] = v;
      overflow = overflow || !isFinite(v);
    }
    bad = team.any(overflow) || bad;
    if (bad) {
      fillNan(team, outQ, m * k);
      fillNan(team, outR, k * n);
    }
    if (team.thread() == 0) status[matrix] = bad ? notFinite : solved;
  }

 private:
  // Element i of a column belongs to lane i % 32 throughout a call.

  /// Makes the reflection that takes column c from row j on to a multiple of the unit vector: that multiple goes to
  /// c[j], the rest of v, whose first element is 1, below it. Gives tau; 0 where nothing is to be done.
  __device__ T makeReflection(T* c, int j, int rows, int lane) const {
    T below = 0;
    for (int i = j / 32 * 32 + lane; i < rows; i += 32) below = i > j ? fused(c[i], c[i], below) : below;
    below = sumOfWarp(below);
    const T first = c[j];
    if (below == 0) return 0;
    const T norm = root(fused(first, first, below)), image = first < 0 ? norm : -norm, inverse = 1 / (first - image);
    __syncwarp(allLanes);  // all have read the first element
    for (int i = j / 32 * 32 + lane; i < rows; i += 32) {
      if (i >= j) c[i] = i == j ? image : c[i] * inverse;
    }
    return (image - first) / image;
  }

  /// x -= tau v (vᵀ x) from row j on.
  __device__ void reflect(const T* v, T tau, int j, int rows, T* x, int lane) const {
    T dot = 0;
    for (int i = j / 32 * 32 + lane; i < rows; i += 32) dot = i >= j ? fused(i == j ? T{1} : v[i], x[i], dot) : dot;
    dot = tau * sumOfWarp(dot);
    for (int i = j / 32 * 32 + lane; i < rows; i += 32) {
      if (i >= j) x[i] = fused(-(i == j ? T{1} : v[i]), dot, x[i]);
    }
  }
};

/// The `qr` slot.
inline Status qr(const Exec& exec, const QrArgs& a) {
  Queue queue(exec);
  const int64_t k = a.m < a.n ? a.m : a.n;
  const auto of = [&]<class T>(T) {
    const QrWork<T> work{.a = static_cast<const T*>(a.a),
                         .q = static_cast<T*>(a.q),
                         .r = static_cast<T*>(a.r),
                         .status = a.status,
                         .m = a.m,
                         .n = a.n,
                         .k = k,
                         .stride = static_cast<int>(a.m | 1),
                         .warps = threadsOfTeam(k) / 32};
    launchTeams(queue, "qr", work, a.batch, k, work.elements(), threadsOfTeam(k));
  };
  a.precision == Precision::float32 ? of(float{}) : of(double{});
  return queue.status();
}

}  // namespace topknot::cuda
