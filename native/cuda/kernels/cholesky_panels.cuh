// The Cholesky factorisation of a matrix by a team: a thread has a row and works through it four columns at a time, for
// which the team needs two barriers. The 4 x 4 block on the diagonal is factorised by every thread for itself.
// Right-hand sides are further rows: what the factorisation does to a row is forward substitution.
#pragma once
#include "cuda/kernels/linalg_team.cuh"

namespace topknot::cuda {

/// The factor of the first `size` rows, a whole number of panels, unless it is `done`; and L y = b for the `sides` rows
/// behind it. Answers every thread alike: the first pivot that is not positive and finite, counted from 1, or 0.
/// `corner`: room for panel² numbers. Begins behind a barrier and ends with one.
template <class Team, class T>
SIMT_DEVICE int factorAndSubstitute(const Team& team, const Columns<T, typename Team::Offset>& l, int size, int sides,
                                    bool done, T* corner) {
  using Offset = typename Team::Offset;
  const int last = size + sides;
  for (int k = 0; k < size; k += panel) {
    const int first = (done ? size : k) + team.thread();
    // Rows of the corner are kept apart, so that all may read them while their final values are stored.
    const auto place = [&](int r) { return r < k + panel ? corner + (r - k) : l.column(k) + r; };
    const auto step = [&](int r) { return r < k + panel ? static_cast<Offset>(panel) : l.ld; };
    for (int r = first; r < last; r += team.size()) {
      T s[panel];
      SIMT_UNROLL
      for (int c = 0; c < panel; ++c) s[c] = l.at(r, k + c);
      for (int j = 0; j < k; ++j) {
        T y[panel];
        loadPanel(l.column(j) + k, y);
        const T v = l.at(r, j);
        SIMT_UNROLL
        for (int c = 0; c < panel; ++c) s[c] = fused(-v, y[c], s[c]);
      }
      SIMT_UNROLL
      for (int c = 0; c < panel; ++c) place(r)[c * step(r)] = s[c];
    }
    team.sync();
    const T* from = done ? l.column(k) + k : corner;
    const Offset apart = done ? l.ld : static_cast<Offset>(panel);
    T d[panel][panel], inverse[panel];
    SIMT_UNROLL
    for (int c = 0; c < panel; ++c) {
      SIMT_UNROLL
      for (int r = c; r < panel; ++r) d[r][c] = from[c * apart + r];
    }
    int failed = 0;
    SIMT_UNROLL
    for (int c = 0; c < panel; ++c) {
      const T pivot = d[c][c];
      if (!done && !(pivot > 0 && isFinite(pivot)) && failed == 0) failed = k + c + 1;
      inverse[c] = 1 / (done ? pivot : root(pivot));
      if (done) continue;
      SIMT_UNROLL
      for (int r = c + 1; r < panel; ++r) {
        d[r][c] *= inverse[c];
        SIMT_UNROLL
        for (int t = c + 1; t <= r; ++t) d[r][t] = fused(-d[r][c], d[t][c], d[r][t]);
      }
    }
    if (failed != 0) return failed;
    for (int r = first; r < last; r += team.size()) {
      T s[panel];
      SIMT_UNROLL
      for (int c = 0; c < panel; ++c) {
        s[c] = place(r)[c * step(r)];
        SIMT_UNROLL
        for (int t = 0; t < c; ++t) s[c] = fused(-s[t], d[c][t], s[c]);
        s[c] *= inverse[c];
        if (r >= k + c) l.at(r, k + c) = s[c];  // in the corner, the lower triangle alone
      }
    }
    team.sync();
  }
  return 0;
}

/// Lᵀ x = y for the rows behind the factor. Ends with a barrier.
template <class Team, class T>
SIMT_DEVICE void substituteBack(const Team& team, const Columns<T, typename Team::Offset>& l, int size, int sides) {
  using Offset = typename Team::Offset;
  for (int k = size - panel; k >= 0; k -= panel) {
    for (int q = team.thread(); q < sides; q += team.size()) {
      T v[panel];
      SIMT_UNROLL
      for (int c = panel - 1; c >= 0; --c) {
        v[c] = l.at(size + q, k + c);
        SIMT_UNROLL
        for (int t = c + 1; t < panel; ++t) v[c] = fused(-l.at(k + t, k + c), v[t], v[c]);
        v[c] /= l.at(k + c, k + c);
        l.at(size + q, k + c) = v[c];
      }
    }
    team.sync();
    for (Offset e = team.thread(); e < static_cast<Offset>(k) * sides; e += team.size()) {
      const int i = static_cast<int>(e / sides), q = static_cast<int>(e % sides);
      T y[panel], s = l.at(size + q, i);
      loadPanel(l.column(i) + k, y);
      SIMT_UNROLL
      for (int c = 0; c < panel; ++c) s = fused(-y[c], l.at(size + q, k + c), s);
      l.at(size + q, i) = s;
    }
    team.sync();
  }
}

}  // namespace topknot::cuda
