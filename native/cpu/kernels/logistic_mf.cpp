// Half-sweeps of logistic matrix factorization: rows in any order, since none reads what another writes.
#include <cmath>
#include <vector>

#include "backend/logistic_mf_args.h"
#include "backend/negatives.h"
#include "cpu/kernels/als_schedule.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/logistic_mf.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/padded_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr float epsilon = 1e-8f;
constexpr int64_t ahead = 8;  // entries whose vectors are prefetched

HWY_INLINE float sigmoid(float s) { return 1.0f / (1.0f + std::exp(-s)); }

/// sum += scale * y
HWY_INLINE void addScaled(float scale, const float* y, int64_t stride, float* sum) {
  const V by = hn::Set(d, scale);
  for (int64_t c = 0; c < stride; c += N) {
    hn::Store(hn::MulAdd(by, hn::Load(d, y + c), hn::Load(d, sum + c)), d, sum + c);
  }
}

/// The row's entries, then its negatives.
HWY_INLINE void listTerms(const LogisticMfArgs& a, int64_t row, std::vector<int32_t>& terms) {
  const CsrView& m = a.own.rows;
  const int64_t first = m.indptr[row], count = m.indptr[row + 1] - first;
  terms.assign(m.indices + first, m.indices + first + count);
  const OwnItems own(a.own, row);
  Random random(a.seed, a.stream + static_cast<uint64_t>(row));
  for (int64_t n = 0; n < a.negatives * std::max<int64_t>(count, 1); ++n) {
    const int32_t item = drawNegative(own, nullptr, m.cols, random);
    if (item >= 0) terms.push_back(item);
  }
}

/// Adds the gradient of the row's terms to `gradient` and returns that of its bias.
HWY_INLINE float addGradient(const LogisticMfArgs& a, int64_t row, const std::vector<int32_t>& terms, float* gradient) {
  const int64_t first = a.own.rows.indptr[row], count = a.own.rows.indptr[row + 1] - first;
  const int64_t last = static_cast<int64_t>(terms.size());
  const float* x = a.factors + row * a.stride;
  float ofBias = 0;
  for (int64_t n = 0; n < last; ++n) {
    if (n + ahead < last) prefetchRow(a.otherFactors + terms[n + ahead] * a.stride, a.stride);
    const float* y = a.otherFactors + terms[n] * a.stride;
    const float chance = sigmoid(dot<false>(x, y, nullptr, a.stride) + a.biases[row] + a.otherBiases[terms[n]]);
    const float weight = n < count ? a.alpha * a.own.rows.values[first + n] : 0.0f;
    const float slope = weight - (1.0f + weight) * chance;
    addScaled(slope, y, a.stride, gradient);
    ofBias += slope;
  }
  return ofBias;
}

HWY_INLINE void climb(const LogisticMfArgs& a, int64_t row, const float* gradient, float ofBias) {
  const V rate = hn::Set(d, a.rate), lambda = hn::Set(d, a.regularization), least = hn::Set(d, epsilon);
  float* x = a.factors + row * a.stride;
  float* squares = a.squaredFactors + row * a.stride;
  for (int64_t c = 0; c < a.stride; c += N) {
    const V old = hn::Load(d, x + c), g = hn::NegMulAdd(lambda, old, hn::Load(d, gradient + c));
    const V sum = hn::MulAdd(g, g, hn::Load(d, squares + c));
    hn::Store(sum, d, squares + c);
    hn::Store(hn::Add(old, hn::Div(hn::Mul(rate, g), hn::Add(hn::Sqrt(sum), least))), d, x + c);
  }
  const float g = ofBias - a.regularization * a.biases[row], sum = a.squaredBiases[row] += g * g;
  a.biases[row] += a.rate * g / (std::sqrt(sum) + epsilon);
}

}  // namespace

Status logisticMf(const Exec& exec, const LogisticMfArgs& a) {
  return guard([&] {
    parallelFor(a.own.rows.rows, 16, exec, [&](int64_t begin, int64_t end, int) {
      std::vector<int32_t> terms;
      const Scratch gradient(a.stride);
      for (int64_t row = begin; row < end; ++row) {
        listTerms(a, row, terms);
        std::fill_n(gradient.data(), a.stride, 0.0f);
        const float ofBias = addGradient(a, row, terms, gradient.data());
        climb(a, row, gradient.data(), ofBias);
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
