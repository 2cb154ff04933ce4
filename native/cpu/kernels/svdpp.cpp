// A batch of SVD++: users side by side, then items side by side. Every row has one writer, so the result is the same at
// any thread count.
#include "backend/rating_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/svdpp.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>

#include "cpu/kernels/als_dense-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// to = keep * to + a * by
HWY_INLINE void blend(float* to, float keep, float a, const float* by, int64_t n) {
  const V k = hn::Set(d, keep), s = hn::Set(d, a);
  for (int64_t j = 0; j < n; j += N) {
    hn::Store(hn::MulAdd(s, hn::Load(d, by + j), hn::Mul(k, hn::Load(d, to + j))), d, to + j);
  }
}

HWY_INLINE void prefetchRow(const float* row, int64_t n) {
  for (int64_t j = 0; j < n; j += 16) __builtin_prefetch(row + j, 0, 2);
}

void visitUser(const SvdppArgs& a, int64_t at) {
  const int64_t u = a.users[at], stride = a.stride, n = stride;
  const int64_t begin = a.ratings.indptr[u], end = a.ratings.indptr[u + 1];
  const float keep = 1.0f - a.learningRate * a.regularization;
  const float scale = end > begin ? 1.0f / std::sqrt(static_cast<float>(end - begin)) : 0.0f;
  float *z = a.z + at * stride, *sum = a.sums + at * stride, *p = a.p + u * stride;
  std::memset(z, 0, static_cast<size_t>(n) * sizeof(float));
  std::memset(sum, 0, static_cast<size_t>(n) * sizeof(float));
  for (int64_t e = begin; e < end; ++e) {
    if (e + 8 < end) prefetchRow(a.y + a.ratings.indices[e + 8] * stride, n);
    blend(z, 1.0f, scale, a.y + a.ratings.indices[e] * stride, n);
  }
  double squares = 0;
  for (int64_t e = begin; e < end; ++e) {
    if (e + 8 < end) prefetchRow(a.q + a.ratings.indices[e + 8] * stride, n);
    const float* q = a.q + a.ratings.indices[e] * stride;
    const float error = a.ratings.values[e] - dot(p, q, n) - dot(z, q, n);
    squares += static_cast<double>(error) * static_cast<double>(error);
    a.errors[a.starts[at] + e - begin] = error;
    blend(sum, 1.0f, error, q, n);
    blend(p, keep, a.learningRate * error, q, n);
    p[a.factors + 1] = 1;
  }
  a.squares[at] = squares;
  blend(z, 1.0f, 1.0f, p, n);
  for (int64_t j = 0; j < a.factors; ++j) sum[j] *= scale;
  sum[a.factors] = sum[a.factors + 1] = 0;  // y has no biases
}

void visitItem(const SvdppArgs& a, int64_t run) {
  const int64_t stride = a.stride, item = a.entries[a.runs[run]].item;
  const float keep = 1.0f - a.learningRate * a.regularization;
  float *q = a.q + item * stride, *y = a.y + item * stride;
  for (int64_t e = a.runs[run]; e < a.runs[run + 1]; ++e) {
    const SvdppEntry& entry = a.entries[e];
    blend(q, keep, a.learningRate * a.errors[entry.entry], a.z + entry.user * stride, stride);
    q[a.factors] = 1;
    blend(y, keep, a.learningRate, a.sums + entry.user * stride, stride);
  }
}

}  // namespace

Status svdpp(const Exec& exec, const SvdppArgs& a) {
  return guard([&] {
    parallelFor(a.count, 1, exec, [&](int64_t at, int64_t, int) { visitUser(a, at); });
    if (exec.cancelled()) return;
    parallelFor(a.itemCount, 64, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t run = begin; run < end; ++run) visitItem(a, run);
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
