// Systems solved by LU with partial pivoting, the CUDA side of cpu/kernels/lu.cpp: right-hand sides are further
// columns. One warp finds the pivots of four columns; then a thread for each other column exchanges its rows and
// finishes its four elements of U, and all threads update what is left.
#pragma once
#include "cuda/kernels/linalg_team.cuh"

namespace topknot::cuda {

template <class T>
struct LuWork {
  using Number = T;
  const T *a, *b;
  T* x;
  int32_t* status;
  int64_t n, rhs;
  int size = 0;      // n, and what the last panel lacks: rows and columns of the identity
  int stride = 0;    // of columns
  int together = 0;  // right-hand sides at a time

  /// The matrix and sides, then an int for each pivot and one for the first that is zero.
  int64_t elements() const { return (int64_t{size} + together) * stride + size + 1; }

  template <class Team>
  __device__ void operator()(const Team& team, int64_t m, T* memory) const {
    using Offset = typename Team::Offset;
    const Columns<T, Offset> u{memory, stride};
    int* pivots = reinterpret_cast<int*>(u.column(size + together));
    int* zero = pivots + size;
    const Offset side = static_cast<Offset>(n);
    const T* in = a + m * n * n;
    bool bad = false;
    for (Offset e = team.thread(); e < side * side; e += team.size()) {
      const T v = in[e];
      u.at(static_cast<int>(e / side), static_cast<int>(e % side)) = v;
      bad = bad || !isFinite(v);
    }
    for (int c = team.thread(); c < size; c += team.size()) {
      for (int r = c < n ? static_cast<int>(n) : 0; r < size; ++r) u.at(r, c) = r == c ? 1 : 0;
    }
    for (Offset e = team.thread(); e < side * rhs; e += team.size()) bad = bad || !isFinite(b[m * n * rhs + e]);
    if (team.thread() == 0) *zero = 0;
    int failed = team.any(bad) ? static_cast<int>(notFinite) : static_cast<int>(solved);
    bad = false;
    for (int64_t first = 0; (first == 0 || first < rhs) && failed == solved; first += together > 0 ? together : 1) {
      const int sides = static_cast<int>(rhs - first < together ? rhs - first : together);
      for (Offset e = team.thread(); e < static_cast<Offset>(size) * sides; e += team.size()) {
        const int i = static_cast<int>(e / sides), q = static_cast<int>(e % sides);
        u.at(i, size + q) = i < n ? b[(m * n + i) * rhs + first + q] : T{0};
      }
      team.sync();
      eliminate(team, u, pivots, zero, sides, first > 0);
      failed = *zero;
      if (failed != solved) break;
      substituteBack(team, u, sides);
      for (Offset e = team.thread(); e < side * sides; e += team.size()) {
        const int i = static_cast<int>(e / sides), q = static_cast<int>(e % sides);
        const T v = u.at(i, size + q);
        x[(m * n + i) * rhs + first + q] = v;
        bad = bad || !isFinite(v);
      }
      team.sync();
    }
    if (team.any(bad)) failed = notFinite;
    if (failed != solved) fillNan(team, x + m * n * rhs, n * rhs);
    if (team.thread() == 0) status[m] = failed;
  }

 private:
  /// L y = P b for the sides; where the matrix is not `done` yet, L and U take its place first. Ends with a barrier.
  template <class Team, class C>
  __device__ void eliminate(const Team& team, const C& u, int* pivots, int* zero, int sides, bool done) const {
    const int last = size + sides;
    for (int k = 0; k < size; k += panel) {
      const int behind = k + panel;
      if (!done) {
        if (team.thread() < 32) factorPanel(u, pivots, zero, k, team.thread());
        team.sync();
      }
      // L keeps the rows where they were when its panel was made: that is the order in which sides meet it.
      for (int c = (done ? size : behind) + team.thread(); c < last; c += team.size()) {
        T* column = u.column(c);
        SIMT_UNROLL
        for (int i = k; i < behind; ++i) {
          const T kept = column[i];
          column[i] = column[pivots[i]];
          column[pivots[i]] = kept;
        }
        SIMT_UNROLL
        for (int i = 1; i < panel; ++i) {
          T s = column[k + i];
          SIMT_UNROLL
          for (int t = 0; t < i; ++t) s = fused(-u.at(k + i, k + t), column[k + t], s);
          column[k + i] = s;
        }
      }
      team.sync();
      // A thread has a row, and every `parts`th column of it where there are more threads than rows.
      const int rows = size - behind, parts = rows > 0 && rows < team.size() ? team.size() / rows : 1;
      for (int e = team.thread(); e < rows * parts; e += team.size()) {
        const int r = behind + e % rows;
        T l[panel];
        SIMT_UNROLL
        for (int i = 0; i < panel; ++i) l[i] = u.at(r, k + i);
        for (int c = (done ? size : behind) + e / rows; c < last; c += parts) {
          T y[panel], s = u.at(r, c);
          loadPanel(u.column(c) + k, y);
          SIMT_UNROLL
          for (int i = 0; i < panel; ++i) s = fused(-l[i], y[i], s);
          u.at(r, c) = s;
        }
      }
      team.sync();
    }
  }

  /// Columns [k, k + panel) from row k on, by one warp. Exchanges rows within these columns alone.
  template <class C>
  __device__ void factorPanel(const C& u, int* pivots, int* zero, int k, int lane) const {
    for (int c = k; c < k + panel; ++c) {
      T largest = -1;
      int row = c;
      for (int r = c + lane; r < size; r += 32) {
        const T v = magnitude(u.at(r, c));
        if (v > largest) largest = v, row = r;
      }
      for (int distance = 16; distance > 0; distance /= 2) {
        const T other = __shfl_xor_sync(allLanes, largest, distance);
        const int otherRow = __shfl_xor_sync(allLanes, row, distance);
        if (other > largest || (other == largest && otherRow < row)) largest = other, row = otherRow;
      }
      if (lane == 0) {
        pivots[c] = row;
        if (largest == 0 && *zero == 0) *zero = c + 1;
      }
      __syncwarp(allLanes);
      if (lane < panel && row != c) {
        const T kept = u.at(c, k + lane);
        u.at(c, k + lane) = u.at(row, k + lane);
        u.at(row, k + lane) = kept;
      }
      __syncwarp(allLanes);
      const T inverse = 1 / u.at(c, c);
      for (int r = c + 1 + lane; r < size; r += 32) {
        const T l = u.at(r, c) * inverse;
        u.at(r, c) = l;
        for (int j = c + 1; j < k + panel; ++j) u.at(r, j) = fused(-l, u.at(c, j), u.at(r, j));
      }
      __syncwarp(allLanes);
    }
  }

  /// U x = y for the sides.
  template <class Team, class C>
  __device__ void substituteBack(const Team& team, const C& u, int sides) const {
    using Offset = typename Team::Offset;
    for (int k = size - panel; k >= 0; k -= panel) {
      for (int q = team.thread(); q < sides; q += team.size()) {
        T* v = u.column(size + q) + k;
        SIMT_UNROLL
        for (int c = panel - 1; c >= 0; --c) {
          T s = v[c];
          SIMT_UNROLL
          for (int t = c + 1; t < panel; ++t) s = fused(-u.at(k + c, k + t), v[t], s);
          v[c] = s / u.at(k + c, k + c);
        }
      }
      team.sync();
      for (Offset e = team.thread(); e < static_cast<Offset>(k) * sides; e += team.size()) {
        const int i = static_cast<int>(e % k), q = static_cast<int>(e / k);
        T y[panel], s = u.at(i, size + q);
        loadPanel(u.column(size + q) + k, y);
        SIMT_UNROLL
        for (int c = 0; c < panel; ++c) s = fused(-u.at(i, k + c), y[c], s);
        u.at(i, size + q) = s;
      }
      team.sync();
    }
  }
};

template <class T>
void queueLu(Queue& queue, int64_t batch, LuWork<T> work) {
  work.size = static_cast<int>(wholePanels(work.n));
  work.stride = static_cast<int>(packedStride(work.size));
  // As many right-hand sides at a time as shared memory has room for beside the matrix, or 256 in global memory.
  const int64_t room = maxDynamicShared / static_cast<int64_t>(sizeof(T)) / work.stride;
  const int64_t most = work.size <= 32 ? 32 : room - work.size - 2;
  const int64_t sides = most >= 8 ? most : 256;
  work.together = static_cast<int>(work.rhs < sides ? work.rhs : sides);
  launchTeams(queue, "luSolve", work, batch, work.size, work.elements(), threadsOfTeam(work.size));
}

/// The `luSolve` slot.
inline Status luSolve(const Exec& exec, const LuSolveArgs& a) {
  Queue queue(exec);
  const auto of = [&]<class T>(T) {
    queueLu<T>(queue, a.batch,
               {.a = static_cast<const T*>(a.a),
                .b = static_cast<const T*>(a.b),
                .x = static_cast<T*>(a.x),
                .status = a.status,
                .n = a.n,
                .rhs = a.rhs});
  };
  a.precision == Precision::float32 ? of(float{}) : of(double{});
  return queue.status();
}

}  // namespace topknot::cuda
