// Cholesky factors and solutions of many systems, the CUDA side of cpu/kernels/cholesky.cpp.
#pragma once
#include "cuda/kernels/cholesky_panels.cuh"

namespace topknot::cuda {

template <class T>
struct CholeskyWork {
  using Number = T;
  const T* a;
  T* factor = nullptr;  // or null
  const T* b = nullptr;
  T* x = nullptr;
  int32_t* status;
  int64_t n, rhs = 0;
  bool factored = false;
  int size = 0;      // n, and what the last panel lacks: rows of the identity
  int stride = 0;    // of columns
  int together = 0;  // right-hand sides at a time

  int64_t elements() const { return int64_t{size} * stride + panel * panel; }

  template <class Team>
  __device__ void operator()(const Team& team, int64_t m, T* memory) const {
    using Offset = typename Team::Offset;
    const Columns<T, Offset> l{memory, stride};
    T* corner = memory + static_cast<Offset>(size) * stride;
    const Offset side = static_cast<Offset>(n), square = side * side;
    const T* in = a + m * square;
    bool bad = false;
    for (Offset e = team.thread(); e < square; e += team.size()) {
      const int r = static_cast<int>(e / side), c = static_cast<int>(e % side);
      if (c > r) continue;
      const T v = in[e];
      l.at(r, c) = v;
      bad = bad || !isFinite(v);
    }
    for (int c = team.thread(); c < size; c += team.size()) {
      for (int r = c < n ? static_cast<int>(n) : c; r < size; ++r) l.at(r, c) = r == c ? 1 : 0;
    }
    loadSides(team, l, m, 0);
    int failed = team.any(bad) && !factored ? static_cast<int>(notFinite) : static_cast<int>(solved);
    if (failed == solved) failed = factorAndSubstitute(team, l, size, sidesAt(0), factored, corner);
    if (factor) {
      T* out = factor + m * square;
      for (Offset e = team.thread(); e < square; e += team.size()) {
        const int r = static_cast<int>(e / side), c = static_cast<int>(e % side);
        out[e] = failed != solved ? std::numeric_limits<T>::quiet_NaN() : c > r ? T{0} : l.at(r, c);
      }
    }
    bad = false;
    for (int64_t first = 0; first < rhs && failed == solved; first += together) {
      if (first > 0) {
        team.sync();
        loadSides(team, l, m, first);
        team.sync();
        factorAndSubstitute(team, l, size, sidesAt(first), true, corner);
      }
      substituteBack(team, l, size, sidesAt(first));
      bad = storeSides(team, l, m, first) || bad;
    }
    if (team.any(bad)) failed = notFinite;
    if (failed != solved) fillNan(team, x + m * n * rhs, n * rhs);
    if (team.thread() == 0) status[m] = failed;
  }

 private:
  __device__ int sidesAt(int64_t first) const {
    return static_cast<int>(rhs - first < together ? rhs - first : together);
  }

  /// Right-hand sides from `first` on become the rows behind the matrix.
  template <class Team, class C>
  __device__ void loadSides(const Team& team, const C& l, int64_t m, int64_t first) const {
    const int count = sidesAt(first);
    for (typename Team::Offset e = team.thread(); e < static_cast<typename Team::Offset>(size) * count;
         e += team.size()) {
      const int i = static_cast<int>(e / count), q = static_cast<int>(e % count);
      l.at(size + q, i) = i < n ? b[(m * n + i) * rhs + first + q] : T{0};
    }
  }

  /// True where one of those that this thread stores is not finite.
  template <class Team, class C>
  __device__ bool storeSides(const Team& team, const C& l, int64_t m, int64_t first) const {
    const int count = sidesAt(first);
    bool bad = false;
    for (typename Team::Offset e = team.thread(); e < static_cast<typename Team::Offset>(n) * count; e += team.size()) {
      const int i = static_cast<int>(e / count), q = static_cast<int>(e % count);
      const T v = l.at(size + q, i);
      x[(m * n + i) * rhs + first + q] = v;
      bad = bad || !isFinite(v);
    }
    return bad;
  }
};

template <class T>
void queueCholesky(Queue& queue, int64_t batch, CholeskyWork<T> work) {
  work.size = static_cast<int>(wholePanels(work.n));
  // As many right-hand sides at a time as shared memory has room for beside the matrix, or 256 in global memory.
  const int64_t room = maxDynamicShared / static_cast<int64_t>(sizeof(T)) / (work.size > 0 ? work.size : 1);
  const int64_t most = work.size <= 32 ? 32 : room - work.size - 3 * panel;
  const int64_t sides = most >= 8 ? most : 256;
  work.together = static_cast<int>(work.rhs < sides ? work.rhs : sides);
  work.stride = static_cast<int>(packedStride(work.size + work.together));
  launchTeams(queue, "cholesky", work, batch, work.size, work.elements(), threadsOfTeam(work.size));
}

/// The `cholesky` slot.
inline Status cholesky(const Exec& exec, const CholeskyArgs& a) {
  Queue queue(exec);
  const auto of = [&]<class T>(T) {
    queueCholesky<T>(
        queue, a.batch,
        {.a = static_cast<const T*>(a.a), .factor = static_cast<T*>(a.factor), .status = a.status, .n = a.n});
  };
  a.precision == Precision::float32 ? of(float{}) : of(double{});
  return queue.status();
}

/// The `choleskySolve` slot.
inline Status choleskySolve(const Exec& exec, const CholeskySolveArgs& a) {
  Queue queue(exec);
  const auto of = [&]<class T>(T) {
    queueCholesky<T>(queue, a.batch,
                     {.a = static_cast<const T*>(a.a),
                      .b = static_cast<const T*>(a.b),
                      .x = static_cast<T*>(a.x),
                      .status = a.status,
                      .n = a.n,
                      .rhs = a.rhs,
                      .factored = a.factored});
  };
  a.precision == Precision::float32 ? of(float{}) : of(double{});
  return queue.status();
}

}  // namespace topknot::cuda
