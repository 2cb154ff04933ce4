// Half-sweeps of alternating least squares by Cholesky, the CUDA side of cpu/kernels/als_cholesky.cpp: a team (a warp
// up to 32 factors, a block beyond) has a row. It gathers the vectors of the row's entries into shared memory, the next
// ones while it works on these, and sums their products in 4 x 4 tiles of the lower triangle, each in the registers of
// a thread; the system is factorised where it was summed. The entries of a heavy row are shared by many blocks, whose
// sums are added in order.
#pragma once
#include "cuda/kernels/als_rows.cuh"
#include "cuda/kernels/cholesky_panels.cuh"
#include "cuda/ptx.h"

namespace topknot::cuda {

inline constexpr int alsEntries = 16;  // entries whose vectors are in shared memory at a time; there are two such sets
inline constexpr int64_t alsParts = 16;  // of a heavy row

/// The system of a row in a team's memory: the matrix with the right-hand side as the row behind it, then room for the
/// factorisation, and the vectors, weights and targets of entries.
struct AlsSystem {
  AlsArgs a;
  int size;    // factors, and what the last panel lacks: rows of the identity
  int stride;  // of columns

  explicit AlsSystem(const AlsArgs& args)
      : a(args),
        size(static_cast<int>(wholePanels(args.fixed.cols))),
        stride(static_cast<int>(packedStride(size + 1))) {}

  constexpr int64_t systemElements() const { return int64_t{size} * stride; }
  int64_t elements() const { return systemElements() + panel * panel + 2 * alsEntries * (size + 2); }

  template <class Team>
  struct Memory {
    Columns<float, typename Team::Offset> system;
    float *corner, *vectors, *weights, *targets;
  };
  template <class Team>
  __device__ Memory<Team> layOut(const Team&, float* memory) const {
    float* corner = memory + static_cast<typename Team::Offset>(size) * stride;
    float* vectors = corner + panel * panel;
    float* weights = vectors + 2 * alsEntries * size;
    return {{memory, stride}, corner, vectors, weights, weights + 2 * alsEntries};
  }

  /// The system without entries, or zeros.
  template <class Team>
  __device__ void start(const Team& team, const Memory<Team>& m, int64_t row, bool zeros) const {
    using Offset = typename Team::Offset;
    const int f = static_cast<int>(a.fixed.cols);
    for (Offset e = team.thread(); e < static_cast<Offset>(size) * size; e += team.size()) {
      const int r = static_cast<int>(e % size), c = static_cast<int>(e / size);
      float x = r == c ? 1 : 0;
      if (r < f && c < f) x = (a.gram ? a.gram[static_cast<Offset>(c) * f + r] : 0.0f) + (r == c ? a.reg[row] : 0.0f);
      m.system.at(r, c) = zeros ? 0 : x;
    }
    for (int c = team.thread(); c < size; c += team.size()) {
      m.system.at(size, c) = a.offset && c < f && !zeros ? a.offset[row * f + c] : 0.0f;
    }
    team.sync();
  }

  /// Begins to copy what belongs to `count` entries from `first` on into set `set`.
  template <class Team>
  __device__ void gather(const Team& team, const Memory<Team>& m, int64_t first, int count, int set) const {
    const int64_t f = a.fixed.cols;
    float* vectors = m.vectors + set * alsEntries * size;
    if (Team::inShared && f % 4 == 0) {
      const int pieces = size / 4;
      for (int i = team.thread(); i < count * pieces; i += team.size()) {
        const float* y = a.fixed.data + a.rows.indices[first + i / pieces] * f;
        copyAsync(vectors + 4 * i, y + 4 * (i % pieces), true);
      }
    } else {
      for (int i = team.thread(); i < count * size; i += team.size()) {
        vectors[i] = i % size < f ? a.fixed.data[a.rows.indices[first + i / size] * f + i % size] : 0.0f;
      }
    }
    commitCopies();
    for (int e = team.thread(); e < count; e += team.size()) {
      const float w = a.rows.values[first + e];
      m.weights[set * alsEntries + e] = w;
      m.targets[set * alsEntries + e] = a.targets ? a.targets[first + e] : w + a.bonus;
    }
  }

  /// Adds what the entries [begin, end) give.
  template <class Team>
  __device__ void add(const Team& team, const Memory<Team>& m, int64_t begin, int64_t end) const {
    const auto countAt = [&](int64_t first) {
      return static_cast<int>(end - first < alsEntries ? end - first : alsEntries);
    };
    if (begin < end) gather(team, m, begin, countAt(begin), 0);
    int set = 0;
    for (int64_t first = begin; first < end; first += alsEntries, set ^= 1) {
      if (first + alsEntries < end) {
        gather(team, m, first + alsEntries, countAt(first + alsEntries), set ^ 1);
        waitForCopies<1>();
      } else {
        waitForCopies<0>();
      }
      team.sync();
      addSet(team, m, countAt(first), set);
      team.sync();
    }
  }

  template <class Team>
  __device__ void addSet(const Team& team, const Memory<Team>& m, int count, int set) const {
    const float *vectors = m.vectors + set * alsEntries * size, *weights = m.weights + set * alsEntries;
    const float* targets = m.targets + set * alsEntries;
    const int side = size / panel;
    for (int tile = team.thread(); tile < side * (side + 1) / 2; tile += team.size()) {
      // Row by row: the tiles before row i are i (i + 1) / 2.
      int i = static_cast<int>((sqrtf(8.0f * static_cast<float>(tile) + 1.0f) - 1.0f) / 2);
      while (i * (i + 1) / 2 > tile) --i;
      while ((i + 1) * (i + 2) / 2 <= tile) ++i;
      const int r = i * panel, c = (tile - i * (i + 1) / 2) * panel;
      float sum[panel][panel];
      SIMT_UNROLL
      for (int k = 0; k < panel; ++k) loadPanel(m.system.column(c + k) + r, sum[k]);
      for (int e = 0; e < count; ++e) {
        float x[panel], y[panel];
        loadPanel(vectors + e * size + r, x);
        loadPanel(vectors + e * size + c, y);
        SIMT_UNROLL
        for (int k = 0; k < panel; ++k) {
          const float weighted = weights[e] * y[k];
          SIMT_UNROLL
          for (int t = 0; t < panel; ++t) sum[k][t] = fmaf(weighted, x[t], sum[k][t]);
        }
      }
      SIMT_UNROLL
      for (int k = 0; k < panel; ++k) {
        SIMT_UNROLL
        for (int t = 0; t < panel; ++t) m.system.at(r + t, c + k) = sum[k][t];
      }
    }
    for (int i = team.thread(); i < size; i += team.size()) {
      float sum = m.system.at(size, i);
      for (int e = 0; e < count; ++e) sum = fmaf(targets[e], vectors[e * size + i], sum);
      m.system.at(size, i) = sum;
    }
  }

  template <class Team>
  __device__ void solve(const Team& team, const Memory<Team>& m, int64_t row, unsigned long long* failed) const {
    const int64_t f = a.fixed.cols;
    if (factorAndSubstitute(team, m.system, size, 1, false, m.corner) != 0) {
      if (team.thread() == 0) reportRow(failed, row);
      return;
    }
    substituteBack(team, m.system, size, 1);
    for (int i = team.thread(); i < f; i += team.size()) a.out[row * f + i] = m.system.at(size, i);
  }
};

/// All rows but the heavy ones.
struct AlsLightRows {
  using Number = float;
  AlsSystem system;
  int64_t heavy;
  unsigned long long* failed;

  template <class Team>
  __device__ void operator()(const Team& team, int64_t row, float* memory) const {
    const AlsArgs& a = system.a;
    const int64_t begin = a.rows.indptr[row], end = a.rows.indptr[row + 1], f = a.fixed.cols;
    if (end - begin > heavy) return;
    if (begin == end) {
      for (int64_t i = team.thread(); i < f; i += team.size()) a.out[row * f + i] = 0;
      return;
    }
    const auto m = system.layOut(team, memory);
    system.start(team, m, row, false);
    system.add(team, m, begin, end);
    system.solve(team, m, row, failed);
  }
};

/// Part p of heavy row h, number h * alsParts + p, into `parts`.
struct AlsHeavyParts {
  using Number = float;
  AlsSystem system;
  const int32_t* list;
  float* parts;

  template <class Team>
  __device__ void operator()(const Team& team, int64_t number, float* memory) const {
    const int64_t row = list[number / alsParts], part = number % alsParts;
    const int64_t begin = system.a.rows.indptr[row], count = system.a.rows.indptr[row + 1] - begin;
    const auto m = system.layOut(team, memory);
    system.start(team, m, row, true);
    system.add(team, m, begin + count * part / alsParts, begin + count * (part + 1) / alsParts);
    float* to = parts + number * system.systemElements();
    for (int64_t e = team.thread(); e < system.systemElements(); e += team.size()) {
      if (e % system.stride <= system.size) to[e] = memory[e];
    }
  }
};

struct AlsHeavyRows {
  using Number = float;
  AlsSystem system;
  const int32_t* list;
  const float* parts;
  unsigned long long* failed;

  template <class Team>
  __device__ void operator()(const Team& team, int64_t number, float* memory) const {
    const int64_t row = list[number], elements = system.systemElements();
    const auto m = system.layOut(team, memory);
    system.start(team, m, row, false);
    for (int64_t e = team.thread(); e < elements; e += team.size()) {
      if (e % system.stride > system.size) continue;
      float sum = memory[e];
      for (int64_t p = 0; p < alsParts; ++p) sum += parts[(number * alsParts + p) * elements + e];
      memory[e] = sum;
    }
    team.sync();
    system.solve(team, m, row, failed);
  }
};

/// The `alsCholesky` slot.
inline Status alsCholesky(const Exec& exec, const AlsArgs& a, const AlsPlan& plan = {}) {
  Queue queue(exec);
  const int64_t f = a.fixed.cols;
  if (a.rows.rows == 0 || f == 0) return queue.status();
  const AlsSystem system(a);
  const int threads = f <= 64 ? 128 : 256;
  auto* failed = queue.zero<unsigned long long>();
  const HeavyRows heavy = findHeavyRows(queue, a.rows, plan.heavy);
  launchTeams(queue, "alsLightRows", AlsLightRows{system, plan.heavy, failed}, a.rows.rows, f, system.elements(),
              threads);
  const int64_t each = alsParts * system.systemElements();
  int64_t room = plan.workspace / (each * static_cast<int64_t>(sizeof(float)));  // heavy rows at a time
  if (room < 1) room = 1;
  if (room > heavy.count) room = heavy.count;
  float* parts = heavy.count > 0 ? queue.workspace<float>(room * each) : nullptr;
  for (int64_t first = 0; first < heavy.count; first += room) {
    const int64_t count = heavy.count - first < room ? heavy.count - first : room;
    launchTeams(queue, "alsHeavyParts", AlsHeavyParts{system, heavy.list + first, parts}, count * alsParts, f,
                system.elements(), threads);
    launchTeams(queue, "alsHeavyRows", AlsHeavyRows{system, heavy.list + first, parts, failed}, count, f,
                system.elements(), threads);
  }
  checkSolved(queue, failed);
  return queue.status();
}

}  // namespace topknot::cuda
