// How the kernels of dense batched algebra walk over a batch; compiled per target, but without arithmetic.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "backend/linalg_args.h"
#include "core/tensor.h"
#include "core/thread_pool.h"

namespace topknot {

/// Matrices with no side longer than this are solved across lanes; with more right-hand sides than `mostLaneColumns`
/// they are not, as all have to fit in the caches. The choice depends on shapes alone: so do the results.
inline constexpr int64_t mostLaneRows = 64, mostLaneColumns = 256;

/// Working memory for each slot of a parallelFor, made when a slot first asks for it.
template <class T>
class SlotMemory {
 public:
  explicit SlotMemory(int64_t count) : count_(static_cast<size_t>(count)), slots_(maxThreads) {}
  T* of(int slot) {
    auto& buffer = slots_[static_cast<size_t>(slot)];
    if (!buffer) buffer = Buffer::host(count_ * sizeof(T));
    return static_cast<T*>(buffer->data());
  }

 private:
  size_t count_;
  std::vector<std::shared_ptr<Buffer>> slots_;
};

/// Calls body(first, matrices, slot) for groups of at most `lanes` matrices, of about `flops` each.
template <class F>
void forEachGroup(const Exec& exec, int64_t batch, int64_t lanes, int64_t flops, F&& body) {
  const int64_t groups = (batch + lanes - 1) / lanes;
  const int64_t grain = std::clamp<int64_t>((1 << 20) / std::max<int64_t>(flops * lanes, 1), 1, 256);
  parallelFor(groups, grain, exec, [&](int64_t begin, int64_t end, int slot) {
    for (int64_t g = begin; g < end; ++g) body(g * lanes, std::min(lanes, batch - g * lanes), slot);
  });
}

template <class T>
void fillNan(T* out, int64_t count) {
  std::fill_n(out, count, std::numeric_limits<T>::quiet_NaN());
}

template <class T>
bool allFinite(const T* data, int64_t count) {
  return std::all_of(data, data + count, [](T x) { return std::isfinite(x); });
}

template <class T>
bool lowerFinite(const T* a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (!allFinite(a + i * n, i + 1)) return false;
  }
  return true;
}

/// The power of two that brings `largest` to about 1; 1 for zero and for what is not finite.
template <class T>
T scaleFor(T largest) {
  if (!(largest > 0) || !std::isfinite(largest)) return 1;
  constexpr int most = std::numeric_limits<T>::max_exponent - 8;
  int exponent;
  std::frexp(largest, &exponent);
  return std::ldexp(T{1}, -std::clamp(exponent, -most, most));
}

/// Pair i < n / 2 of a round among n players, n even: in n - 1 rounds everyone meets everyone, each pair p < q once.
struct Pair {
  int64_t p, q;
};
inline Pair pairOf(int64_t n, int64_t round, int64_t i) {
  const int64_t a = i == 0 ? n - 1 : (round + i) % (n - 1), b = i == 0 ? round : (round + n - 1 - i) % (n - 1);
  return {std::min(a, b), std::max(a, b)};
}

/// Sweeps of a Jacobi iteration, each through all pairs, before a matrix is given up; about 10 are enough at 64 rows.
inline constexpr int mostSweeps = 40;

}  // namespace topknot
