// c = f(alpha op(a) op(b) + beta c + bias). Every task makes one block of one c from start to end: it packs the parts
// of a and b that it needs, `depthBlock` deep at a time, and runs register tiles over them. Tasks never wait for each
// other; what they pack twice costs a few per cent. Every element is a sum over blocks of depth of sums in the order of
// k, whatever the blocks and the threads.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "backend/matmul_args.h"
#include "cpu/kernels/candidates.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/matmul.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/elementwise-inl.h"
#include "cpu/kernels/matmul-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr int64_t depthBlock = 256;    // a panel of b of this depth, and one of a, fit the first-level cache
constexpr int64_t rowsBlock = 240;     // rows of a, packed: half of a second-level cache
constexpr int64_t colsBlock = 1024;    // columns of b, packed: a share of the last-level cache
constexpr int64_t taskWork = 1 << 21;  // multiply-adds that are worth a task of their own

int64_t ceilDiv(int64_t n, int64_t by) { return (n + by - 1) / by; }
int64_t roundUp(int64_t n, int64_t multiple) { return ceilDiv(n, multiple) * multiple; }

/// c = f(c + bias) over n elements of a row.
template <Unary f>
HWY_NOINLINE void finishRow(float* c, const float* bias, int64_t n) {
  forVectors(n, [&](int64_t j, int64_t count) HWY_ATTR {
    Floats x = loadSome(c + j, count);
    if (bias) x = hn::Add(x, loadSome(bias + j, count));
    storeSome(apply<f>(x), c + j, count);
  });
}

/// What is done to every element of c when its sum is complete.
class Finish {
 public:
  explicit Finish(const MatmulArgs& a) : bias_(a.bias) {
    withFunction(a.activation, [&](auto f) { row_ = finishRow<f.value>; });
    if (a.activation == Unary::none && !a.bias) row_ = nullptr;
  }
  /// Columns from j on of some rows, while they are in the cache.
  void rows(float* c, int64_t stride, int64_t count, int64_t j, int64_t n) const {
    for (int64_t i = 0; row_ && i < count; ++i) row_(c + i * stride, bias_ ? bias_ + j : nullptr, n);
  }

 private:
  const float* bias_;
  void (*row_)(float*, const float*, int64_t);
};

/// One product of the batch, or a slice of the depth of one.
struct Product {
  PanelSource a, b;
  int64_t k;
  float alpha, beta;
  float* c;
  int64_t cStride;
};

int64_t bytesOf(RowFormat format) { return format == RowFormat::float32 ? 4 : 2; }

PanelSource sourceOf(const MatmulOperand& x, int64_t start, bool lanesAreRows) {
  const void* data = static_cast<const char*>(x.data) + start * bytesOf(x.format);
  return lanesAreRows != x.transposed ? PanelSource{data, x.stride, 1} : PanelSource{data, 1, x.stride};
}

/// How all products are cut into blocks of c.
struct Plan {
  int64_t rows, cols, rowBlocks, colBlocks;

  Plan(int64_t m, int64_t n, int64_t k, int64_t products, int64_t R, int64_t W) {
    rows = std::min(roundUp(m, R), rowsBlock), cols = std::min(roundUp(n, W), colsBlock);
    // Smaller blocks until every thread has a few: they change no result.
    while (products * ceilDiv(m, rows) * ceilDiv(n, cols) < 4 * threadCount() && rows * cols * k >= 2 * taskWork) {
      if (cols > rows && cols > W) cols = roundUp(cols / 2, W);
      else if (rows > R) rows = roundUp(rows / 2, R);
      else break;
    }
    rows = roundUp(ceilDiv(m, ceilDiv(m, rows)), R), cols = roundUp(ceilDiv(n, ceilDiv(n, cols)), W);
    rowBlocks = ceilDiv(m, rows), colBlocks = ceilDiv(n, cols);
  }
  int64_t blocks() const { return rowBlocks * colBlocks; }
};

/// Rows [i0, i0 + rows) and columns [j0, j0 + cols) of c.
template <int V>
void multiplyBlock(const MatmulArgs& args, const Product& p, int64_t i0, int64_t rows, int64_t j0, int64_t cols,
                   float* packedA, float* packedB) {
  constexpr int R = tileRows<V>();
  constexpr int64_t W = V * lanes;
  for (int64_t k = 0; k < std::max<int64_t>(p.k, 1); k += depthBlock) {
    const int64_t depth = std::min(depthBlock, p.k - k);
    const float beta = k == 0 ? p.beta : 1.0f;
    pack<R>(args.a.format, p.a, i0, rows, k, depth, packedA);
    pack<W>(args.b.format, p.b, j0, cols, k, depth, packedB);
    for (int64_t j = 0; j < cols; j += W) {
      for (int64_t i = 0; i < rows; i += R) {
        float* c = p.c + (i0 + i) * p.cStride + j0 + j;
        Floats sums[R][V];
        multiplyTile<V>(packedB + j * depth, packedA + i * depth, 1, R, depth, sums);
        if (i + R <= rows && j + W <= cols) storeWhole<V, R>(sums, p.alpha, beta, c, p.cStride);
        else storePart<V, R>(sums, p.alpha, beta, c, p.cStride, std::min<int64_t>(R, rows - i), std::min(W, cols - j));
      }
    }
  }
}

template <int V>
void multiplyAll(const Exec& exec, const MatmulArgs& args, int64_t products, int64_t k, const Finish* finish,
                 const auto& productOf) {
  const int64_t m = args.m, n = args.n;
  const Plan plan(m, n, k, products, tileRows<V>(), V * lanes);
  const int64_t depth = std::min(depthBlock, k);
  std::vector<std::unique_ptr<AlignedFloats>> scratch(maxThreads);
  const int64_t grain = std::max<int64_t>(1, taskWork / std::max<int64_t>(plan.rows * plan.cols * k, 1));
  parallelFor(products * plan.blocks(), grain, exec, [&](int64_t begin, int64_t end, int slot) {
    // One spare vector: tiles of any width start on a whole one.
    if (!scratch[slot]) scratch[slot] = std::make_unique<AlignedFloats>((plan.rows + plan.cols) * depth + 16);
    float* packedB = scratch[slot]->data();
    for (int64_t task = begin; task < end; ++task) {
      const Product p = productOf(task / plan.blocks());
      const int64_t block = task % plan.blocks();
      const int64_t i = block / plan.colBlocks * plan.rows, j = block % plan.colBlocks * plan.cols;
      const int64_t rows = std::min(plan.rows, m - i), cols = std::min(plan.cols, n - j);
      multiplyBlock<V>(args, p, i, rows, j, cols, packedB + plan.cols * depth, packedB);
      if (finish) finish->rows(p.c + i * p.cStride + j, p.cStride, rows, j, cols);
    }
  });
}

void multiplyAny(const Exec& exec, const MatmulArgs& args, int64_t products, int64_t k, const Finish* finish,
                 const auto& productOf) {
  if (args.n <= lanes) multiplyAll<1>(exec, args, products, k, finish, productOf);
  else multiplyAll<2>(exec, args, products, k, finish, productOf);
}

/// A small c of a long sum: slices of the depth are products of their own, added up in order afterwards.
void multiplySlices(const Exec& exec, const MatmulArgs& args, int64_t slices, int64_t depth, const Finish& finish) {
  const int64_t size = args.m * args.n, count = args.batch.count();
  const AlignedFloats sums(count * slices * size);
  multiplyAny(exec, args, count * slices, depth, nullptr, [&](int64_t product) {
    const int64_t of = product / slices, k = product % slices * depth;
    const auto along = [&](const MatmulOperand& x, bool down) { return k * (down != x.transposed ? x.stride : 1); };
    return Product{sourceOf(args.a, args.batch.start(args.batch.aStride, of) + along(args.a, false), true),
                   sourceOf(args.b, args.batch.start(args.batch.bStride, of) + along(args.b, true), false),
                   std::min(depth, args.k - k),
                   1,
                   0,
                   sums.data() + product * size,
                   args.n};
  });
  if (exec.cancelled()) return;
  parallelFor(count * args.m, std::max<int64_t>(1, (1 << 14) / (slices * args.n)), exec,
              [&](int64_t begin, int64_t end, int) {
                for (int64_t row = begin; row < end; ++row) {
                  const int64_t of = row / args.m, i = row % args.m;
                  const float* first = sums.data() + of * slices * size + i * args.n;
                  float* c = args.c + of * args.batch.cStride + i * args.cStride;
                  for (int64_t j = 0; j < args.n; ++j) {
                    float sum = first[j];
                    for (int64_t s = 1; s < slices; ++s) sum += first[s * size + j];
                    c[j] = args.alpha * sum + (args.beta != 0 ? args.beta * c[j] : 0.0f);
                  }
                  finish.rows(c, args.cStride, 1, 0, args.n);
                }
              });
}

}  // namespace

Status matmul(const Exec& exec, const MatmulArgs& a) {
  return guard([&] {
    const int64_t products = a.batch.count();
    if (a.m == 0 || a.n == 0 || products == 0) return;
    const Finish finish(a);
    // Slices depend on the sizes alone: they decide in which order sums are added.
    constexpr int64_t slicedSize = 1 << 16, mostSlices = 16, leastDepth = 4 * depthBlock;
    const int64_t slices = products * a.m * a.n > slicedSize ? 1 : std::min(mostSlices, a.k / leastDepth);
    if (slices > 1) {
      const int64_t depth = roundUp(ceilDiv(a.k, slices), depthBlock);
      return multiplySlices(exec, a, ceilDiv(a.k, depth), depth, finish);
    }
    multiplyAny(exec, a, products, a.k, &finish, [&](int64_t product) {
      return Product{sourceOf(a.a, a.batch.start(a.batch.aStride, product), true),
                     sourceOf(a.b, a.batch.start(a.batch.bStride, product), false),
                     a.k,
                     a.alpha,
                     a.beta,
                     a.c + product * a.batch.cStride,
                     a.cStride};
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
