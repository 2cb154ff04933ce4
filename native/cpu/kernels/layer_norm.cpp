// Layer normalisation of rows, forward and backward. The backward pass makes mean and variance again; the gradients of
// weight and bias are added up over fixed blocks of rows.
#include <algorithm>
#include <cmath>

#include "backend/blocks_args.h"
#include "cpu/kernels/candidates.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/layer_norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/elementwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

float sumLanes(Floats v) { return hn::GetLane(hn::SumOfLanes(real, v)); }

/// Lanes from `count` on become zero.
HWY_INLINE Floats firstOf(Floats v, int64_t count) {
  return count == lanes ? v : hn::IfThenElseZero(hn::FirstN(real, static_cast<size_t>(count)), v);
}

struct Moments {
  float mean, inverse;  // inverse: 1 / sqrt(variance + eps)
};

HWY_NOINLINE Moments momentsOf(const float* x, int64_t n, float eps) {
  Floats sum = hn::Zero(real), squares = hn::Zero(real);
  forVectors(n, [&](int64_t i, int64_t count) HWY_ATTR { sum = hn::Add(sum, loadSome(x + i, count)); });
  const float mean = sumLanes(sum) / static_cast<float>(n);
  forVectors(n, [&](int64_t i, int64_t count) HWY_ATTR {
    const Floats d = firstOf(hn::Sub(loadSome(x + i, count), all(mean)), count);
    squares = hn::MulAdd(d, d, squares);
  });
  return {mean, 1 / std::sqrt(sumLanes(squares) / static_cast<float>(n) + eps)};
}

HWY_NOINLINE void normalizeRow(const LayerNormArgs& a, int64_t row) {
  const float* x = a.x + row * a.cols;
  float* out = a.out + row * a.cols;
  const Moments m = momentsOf(x, a.cols, a.eps);
  forVectors(a.cols, [&](int64_t i, int64_t count) HWY_ATTR {
    Floats v = hn::Mul(hn::Sub(loadSome(x + i, count), all(m.mean)), all(m.inverse));
    if (a.weight) v = hn::Mul(v, loadSome(a.weight + i, count));
    if (a.bias) v = hn::Add(v, loadSome(a.bias + i, count));
    storeSome(v, out + i, count);
  });
}

/// Adds the row's share to `weightSums` and `biasSums`, where they are wanted.
HWY_NOINLINE void gradientRow(const LayerNormGradientArgs& a, int64_t row, float* weightSums, float* biasSums) {
  const float *x = a.x + row * a.cols, *gradient = a.gradient + row * a.cols;
  float* out = a.out + row * a.cols;
  const Moments m = momentsOf(x, a.cols, a.eps);
  const Floats mean = all(m.mean), inverse = all(m.inverse);
  Floats sum = hn::Zero(real), products = hn::Zero(real);
  forVectors(a.cols, [&](int64_t i, int64_t count) HWY_ATTR {
    const Floats g = loadSome(gradient + i, count), n = hn::Mul(hn::Sub(loadSome(x + i, count), mean), inverse);
    const Floats h = a.weight ? hn::Mul(g, loadSome(a.weight + i, count)) : g;
    sum = hn::Add(sum, h);
    products = hn::MulAdd(h, n, products);
    if (weightSums) storeSome(hn::MulAdd(g, n, loadSome(weightSums + i, count)), weightSums + i, count);
    if (biasSums) storeSome(hn::Add(g, loadSome(biasSums + i, count)), biasSums + i, count);
  });
  const Floats first = all(sumLanes(sum) / static_cast<float>(a.cols));
  const Floats second = all(sumLanes(products) / static_cast<float>(a.cols));
  forVectors(a.cols, [&](int64_t i, int64_t count) HWY_ATTR {
    const Floats n = hn::Mul(hn::Sub(loadSome(x + i, count), mean), inverse), g = loadSome(gradient + i, count);
    const Floats h = a.weight ? hn::Mul(g, loadSome(a.weight + i, count)) : g;
    storeSome(hn::Mul(inverse, hn::Sub(hn::Sub(h, first), hn::Mul(n, second))), out + i, count);
  });
}

}  // namespace

Status layerNorm(const Exec& exec, const LayerNormArgs& a) {
  return guard([&] {
    parallelFor(a.rows, std::max<int64_t>(1, (1 << 14) / a.cols), exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) normalizeRow(a, r);
    });
  });
}

Status layerNormGradient(const Exec& exec, const LayerNormGradientArgs& a) {
  return guard([&] {
    const int64_t most = 64;  // blocks, by the size alone
    const int64_t block = std::max(std::max<int64_t>(1, (1 << 14) / a.cols), (a.rows + most - 1) / most);
    const int64_t blocks = (a.rows + block - 1) / block;
    const AlignedFloats sums(blocks * 2 * a.cols);
    parallelFor(blocks, 1, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t b = begin; b < end; ++b) {
        float* own = sums.data() + b * 2 * a.cols;
        std::fill_n(own, 2 * a.cols, 0.0f);
        for (int64_t r = b * block; r < std::min(a.rows, (b + 1) * block); ++r) {
          gradientRow(a, r, a.weightGradient ? own : nullptr, a.biasGradient ? own + a.cols : nullptr);
        }
      }
    });
    if (exec.cancelled()) return;
    for (int which = 0; which < 2; ++which) {
      float* out = which ? a.biasGradient : a.weightGradient;
      for (int64_t j = 0; out && j < a.cols; ++j) {
        double sum = 0;
        for (int64_t b = 0; b < blocks; ++b) sum += static_cast<double>(sums.data()[(b * 2 + which) * a.cols + j]);
        out[j] = static_cast<float>(sum);
      }
    }
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
