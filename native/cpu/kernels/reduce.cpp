// Sums, means and maxima along one dimension. Blocks of fixed length are added in float32, their sums in float64 in the
// order of the blocks.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/blocks_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/reduce.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/elementwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr int64_t rowBlock = 1 << 13;  // elements of a row that are added in float32
constexpr int64_t downBlock = 1 << 9;  // the same down a column
constexpr int64_t columns = 1 << 10;   // columns of one task
constexpr int64_t chunkElements = 1 << 15;
constexpr float minusInfinity = -std::numeric_limits<float>::infinity();

template <bool max>
HWY_INLINE Floats merge(Floats sum, Floats x) {
  if constexpr (!max) return hn::Add(sum, x);
  return hn::IfThenElse(hn::Gt(x, sum), x, hn::IfThenElse(hn::Eq(x, x), sum, x));  // NaN stays
}

template <bool max>
double mergeOne(double sum, double x) {
  if constexpr (!max) return sum + x;
  return x > sum || x != x ? x : sum;
}

/// Of n elements side by side.
template <bool max>
HWY_NOINLINE float reduceRow(const float* x, int64_t n) {
  const Floats start = max ? all(minusInfinity) : hn::Zero(real);
  Floats s0 = start, s1 = start, s2 = start, s3 = start;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = merge<max>(s0, hn::LoadU(real, x + i));
    s1 = merge<max>(s1, hn::LoadU(real, x + i + lanes));
    s2 = merge<max>(s2, hn::LoadU(real, x + i + 2 * lanes));
    s3 = merge<max>(s3, hn::LoadU(real, x + i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) s0 = merge<max>(s0, hn::LoadU(real, x + i));
  HWY_ALIGN float parts[lanes];
  hn::Store(merge<max>(merge<max>(s0, s1), merge<max>(s2, s3)), real, parts);
  double sum = parts[0];
  for (int64_t l = 1; l < lanes; ++l) sum = mergeOne<max>(sum, static_cast<double>(parts[l]));
  for (; i < n; ++i) sum = mergeOne<max>(sum, static_cast<double>(x[i]));
  return static_cast<float>(sum);
}

/// Down `length` rows that are `stride` apart, for `count` columns.
template <bool max>
HWY_NOINLINE void reduceDown(const float* x, int64_t stride, int64_t length, int64_t count, float* out) {
  const Floats start = max ? all(minusInfinity) : hn::Zero(real);
  int64_t j = 0;
  for (; j + 4 * lanes <= count; j += 4 * lanes) {
    Floats s0 = start, s1 = start, s2 = start, s3 = start;
    const float* row = x + j;
    for (int64_t l = 0; l < length; ++l, row += stride) {
      s0 = merge<max>(s0, hn::LoadU(real, row));
      s1 = merge<max>(s1, hn::LoadU(real, row + lanes));
      s2 = merge<max>(s2, hn::LoadU(real, row + 2 * lanes));
      s3 = merge<max>(s3, hn::LoadU(real, row + 3 * lanes));
    }
    hn::StoreU(s0, real, out + j);
    hn::StoreU(s1, real, out + j + lanes);
    hn::StoreU(s2, real, out + j + 2 * lanes);
    hn::StoreU(s3, real, out + j + 3 * lanes);
  }
  forVectors(count - j, [&](int64_t i, int64_t n) HWY_ATTR {
    Floats sum = start;
    const float* row = x + j + i;
    for (int64_t l = 0; l < length; ++l, row += stride) sum = merge<max>(sum, loadSome(row, n));
    storeSome(sum, out + j + i, n);
  });
}

template <bool max>
void reduceAll(const Exec& exec, const ReduceArgs& a, double scale) {
  const bool rows = a.inner == 1;
  const int64_t block = rows ? rowBlock : downBlock;
  const int64_t blocks = std::max<int64_t>(1, (a.length + block - 1) / block);
  const int64_t slabs = (a.inner + columns - 1) / columns, results = a.outer * a.inner;
  std::vector<float> partial(static_cast<size_t>(blocks > 1 ? results * blocks : 0));
  float* to = blocks > 1 ? partial.data() : a.out;
  const int64_t cost = std::max<int64_t>(1, std::min(block, a.length) * std::min(columns, a.inner));
  parallelFor(a.outer * blocks * slabs, std::max<int64_t>(1, chunkElements / cost), exec,
              [&](int64_t begin, int64_t end, int) {
                for (int64_t task = begin; task < end; ++task) {
                  const int64_t slab = task % slabs, b = task / slabs % blocks, o = task / slabs / blocks;
                  const int64_t first = b * block, length = std::min(block, a.length - first);
                  const int64_t j = slab * columns, count = std::min(columns, a.inner - j);
                  const float* x = a.x + (o * a.length + first) * a.inner + j;
                  float* out = to + (o * blocks + b) * a.inner + j;
                  if (rows) *out = reduceRow<max>(x, length);
                  else reduceDown<max>(x, a.inner, length, count, out);
                }
              });
  if (exec.cancelled() || (blocks == 1 && scale == 1)) return;
  parallelFor(results, std::max<int64_t>(1, chunkElements / blocks), exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float* of = to + r / a.inner * blocks * a.inner + r % a.inner;
      double sum = *of;
      for (int64_t b = 1; b < blocks; ++b) sum = mergeOne<max>(sum, static_cast<double>(of[b * a.inner]));
      a.out[r] = static_cast<float>(sum * scale);
    }
  });
}

/// Gives each maximum its gradient: at the first element that has it, NaN above all.
void maxGradient(const ReduceGradientArgs& a, int64_t o, int64_t j, int64_t count) {
  const float* x = a.x + o * a.length * a.inner + j;
  float* out = a.out + o * a.length * a.inner + j;
  std::vector<float> best(x, x + count);
  std::vector<int64_t> at(static_cast<size_t>(count), 0);
  for (int64_t l = 0; l < a.length; ++l) {
    const float* row = x + l * a.inner;
    std::fill_n(out + l * a.inner, count, 0.0f);
    for (int64_t i = 0; i < count; ++i) {
      if (row[i] > best[i] || (row[i] != row[i] && best[i] == best[i])) best[i] = row[i], at[i] = l;
    }
  }
  const float* gradient = a.gradient + o * a.inner + j;
  for (int64_t i = 0; i < count; ++i) out[at[i] * a.inner + i] = gradient[i];
}

}  // namespace

Status reduce(const Exec& exec, const ReduceArgs& a) {
  return guard([&] {
    if (a.kind == Reduction::max) return reduceAll<true>(exec, a, 1);
    reduceAll<false>(exec, a, a.kind == Reduction::mean ? 1 / static_cast<double>(a.length) : 1);
  });
}

Status reduceGradient(const Exec& exec, const ReduceGradientArgs& a) {
  return guard([&] {
    if (a.length == 0) return;
    if (a.kind == Reduction::max) {
      const int64_t slabs = (a.inner + columns - 1) / columns;
      const int64_t cost = std::max<int64_t>(1, a.length * std::min(columns, a.inner));
      parallelFor(a.outer * slabs, std::max<int64_t>(1, chunkElements / cost), exec,
                  [&](int64_t begin, int64_t end, int) {
                    for (int64_t task = begin; task < end; ++task) {
                      const int64_t j = task % slabs * columns;
                      maxGradient(a, task / slabs, j, std::min(columns, a.inner - j));
                    }
                  });
      return;
    }
    const float scale = a.kind == Reduction::mean ? 1 / static_cast<float>(a.length) : 1.0f;
    const int64_t rows = a.outer * a.length;
    parallelFor(rows, std::max<int64_t>(1, chunkElements / std::max<int64_t>(a.inner, 1)), exec,
                [&](int64_t begin, int64_t end, int) {
                  for (int64_t row = begin; row < end; ++row) {
                    const float* gradient = a.gradient + row / a.length * a.inner;
                    float* out = a.out + row * a.inner;
                    for (int64_t j = 0; j < a.inner; ++j) out[j] = gradient[j] * scale;
                  }
                });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
