// Teams for dense batched algebra: a warp for a small matrix, a block for a larger one. A team works on one matrix at a
// time in memory of its own: shared memory, or global memory where that is too small. The code of a decomposition is
// the same for all of them.
#pragma once
#include <cmath>
#include <limits>

#include "backend/linalg_args.h"
#include "cuda/simt.h"

namespace topknot::cuda {

/// A warp, with a part of its block's shared memory.
struct WarpTeam {
  static constexpr bool inShared = true;
  using Offset = int;  // within the team's memory

  __device__ int size() const { return 32; }
  __device__ int thread() const { return static_cast<int>(threadIdx.x % 32); }
  __device__ int warps() const { return 1; }
  __device__ int warp() const { return 0; }
  __device__ int ofBlock() const { return static_cast<int>(threadIdx.x / 32); }
  __device__ int64_t index() const { return int64_t{blockIdx.x} * (blockDim.x / 32) + ofBlock(); }
  __device__ int64_t count() const { return int64_t{gridDim.x} * (blockDim.x / 32); }
  __device__ void sync() const { __syncwarp(allLanes); }
  /// Whether it is true of any thread; a barrier like sync().
  __device__ bool any(bool mine) const {
    __syncwarp(allLanes);
    return __any_sync(allLanes, mine) != 0;
  }
};

/// A block, with its shared memory or with some of the global memory.
template <bool shared>
struct BlockTeam {
  static constexpr bool inShared = shared;
  using Offset = std::conditional_t<shared, int, int64_t>;

  __device__ int size() const { return static_cast<int>(blockDim.x); }
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int warps() const { return static_cast<int>(blockDim.x / 32); }
  __device__ int warp() const { return static_cast<int>(threadIdx.x / 32); }
  __device__ int ofBlock() const { return 0; }
  __device__ int64_t index() const { return blockIdx.x; }
  __device__ int64_t count() const { return gridDim.x; }
  __device__ void sync() const { __syncthreads(); }
  __device__ bool any(bool mine) const { return __syncthreads_or(mine) != 0; }
};

/// A matrix in a team's memory, column by column.
template <class T, class Offset>
struct Columns {
  T* data;
  Offset ld;

  __device__ T* column(int c) const { return data + static_cast<Offset>(c) * ld; }
  __device__ T& at(int r, int c) const { return column(c)[r]; }
};

/// `work(team, matrix, memory)` for every matrix of a batch.
template <class Team, class Work>
__global__ void __launch_bounds__(256, 1)
    solveMatrices(Work work, int64_t batch, int64_t elements, typename Work::Number* workspace) {
  SIMT_DYNAMIC_SHARED(memory);
  const Team team;
  typename Work::Number* mine;
  if constexpr (Team::inShared) mine = reinterpret_cast<typename Work::Number*>(memory) + team.ofBlock() * elements;
  else mine = workspace + team.index() * elements;
  for (int64_t m = team.index(); m < batch; m += team.count()) {
    work(team, m, mine);
    team.sync();
  }
}

inline int threadsOfTeam(int64_t side) { return side <= 64 ? 64 : side <= 128 ? 128 : 256; }

/// `elements` numbers of memory for each matrix; `side` decides about the team, `threads` are those of a block.
template <class Work>
void launchTeams(Queue& queue, const char* name, const Work& work, int64_t batch, int64_t side, int64_t elements,
                 int threads) {
  using T = typename Work::Number;
  constexpr int64_t warps = 4, most = 1 << 20;  // of a block; blocks of a grid
  if (batch == 0) return;
  elements = (elements + 3) / 4 * 4;  // every team's memory is aligned as the first one's
  const int64_t bytes = elements * static_cast<int64_t>(sizeof(T));
  if (side <= 32 && warps * bytes <= maxDynamicShared) {
    const int64_t blocks = (batch + warps - 1) / warps;
    queue.launch(name, solveMatrices<WarpTeam, Work>, {blocks < most ? blocks : most, 1, warps * bytes}, warps * 32,
                 work, batch, elements, nullptr);
    return;
  }
  if (bytes <= maxDynamicShared) {
    queue.launch(name, solveMatrices<BlockTeam<true>, Work>, {batch < most ? batch : most, 1, bytes}, threads, work,
                 batch, elements, nullptr);
    return;
  }
  const int64_t room = int64_t{2} * queue.multiprocessors(), blocks = batch < room ? batch : room;
  T* workspace = queue.workspace<T>(blocks * elements);
  queue.launch(name, solveMatrices<BlockTeam<false>, Work>, {blocks}, threads, work, batch, elements, workspace);
  queue.release(workspace);
}

// The same names for both precisions.
SIMT_DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }
SIMT_DEVICE double fused(double a, double b, double c) { return fma(a, b, c); }
SIMT_DEVICE float root(float x) { return sqrtf(x); }
SIMT_DEVICE double root(double x) { return sqrt(x); }
template <class T>
SIMT_DEVICE T magnitude(T x) {
  return x < 0 ? -x : x;
}
template <class T>
SIMT_DEVICE bool isFinite(T x) {
  return magnitude(x) <= std::numeric_limits<T>::max();
}

/// The power of two that brings `largest` to about 1; 1 for zero and for what is not finite.
template <class T>
SIMT_DEVICE T scaleFor(T largest) {
  if (!(largest > 0) || !isFinite(largest)) return 1;
  constexpr int most = std::numeric_limits<T>::max_exponent - 8;
  int exponent;
  std::frexp(largest, &exponent);
  return std::ldexp(T{1}, -(exponent < -most ? -most : exponent > most ? most : exponent));
}

inline constexpr int panel = 4;  // columns at a time
inline int64_t wholePanels(int64_t n) { return (n + panel - 1) / panel * panel; }
/// An odd number of packs of four: those of neighbouring columns lie in different banks.
inline int64_t packedStride(int64_t rows) { return ((rows + panel - 1) / panel | 1) * panel; }

/// `panel` numbers, 16-byte aligned, in as few loads as there are.
template <class T>
SIMT_DEVICE void loadPanel(const T* from, T (&to)[panel]) {
  struct alignas(16) Vector {
    T v[16 / sizeof(T)];
  };
  constexpr int width = 16 / sizeof(T);
  SIMT_UNROLL
  for (int i = 0; i < panel; i += width) {
    const Vector x = *reinterpret_cast<const Vector*>(from + i);
    SIMT_UNROLL
    for (int c = 0; c < width; ++c) to[i + c] = x.v[c];
  }
}

template <class T>
SIMT_DEVICE T sumOfWarp(T x) {
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(allLanes, x, distance);
  return x;
}
template <class T>
SIMT_DEVICE T maxOfWarp(T x) {
  for (int distance = 16; distance > 0; distance /= 2) {
    const T other = __shfl_xor_sync(allLanes, x, distance);
    x = other > x ? other : x;
  }
  return x;
}

/// Pair i < n / 2 of a round among n players, n even: in n - 1 rounds everyone meets everyone, each pair p < q once.
struct Pair {
  int p, q;
};
SIMT_DEVICE Pair pairOf(int n, int round, int i) {
  const int a = i == 0 ? n - 1 : (round + i) % (n - 1), b = i == 0 ? round : (round + n - 1 - i) % (n - 1);
  return a < b ? Pair{a, b} : Pair{b, a};
}

/// Sweeps of a Jacobi iteration, each through all pairs, before a matrix is given up; about 10 are enough at 64 rows.
inline constexpr int mostSweeps = 40;

/// Sets `count` numbers of a failed matrix.
template <class Team, class T>
SIMT_DEVICE void fillNan(const Team& team, T* out, int64_t count) {
  for (int64_t e = team.thread(); e < count; e += team.size()) out[e] = std::numeric_limits<T>::quiet_NaN();
}

}  // namespace topknot::cuda
