// Inner products at the entries of a sparse matrix; each is computed whole and in one order.
#include <algorithm>

#include "backend/rating_args.h"
#include "cpu/kernels/als_schedule.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/csr_scores.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/als_dense-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// Four entries from `e` on, of which `count` exist; x is the row's vector, padded with zeros.
HWY_INLINE void four(const CsrScoresArgs& a, int64_t e, int64_t count, const float* x, int64_t nnz) {
  const int64_t f = a.y.cols, whole = f / N * N;
  const float* y[4];
  V s[4];
  for (int64_t r = 0; r < 4; ++r) {
    y[r] = a.y.row(a.rows.indices[e + std::min(r, count - 1)]);
    s[r] = hn::Zero(d);
    const float* coming = a.y.row(a.rows.indices[std::min(e + r + 16, nnz - 1)]);
    for (int64_t j = 0; j < f; j += 16) __builtin_prefetch(coming + j, 0, 2);
  }
  for (int64_t j = 0; j < whole; j += N) {
    const V v = hn::Load(d, x + j);
    for (int r = 0; r < 4; ++r) s[r] = hn::MulAdd(hn::LoadU(d, y[r] + j), v, s[r]);
  }
  if (whole < f) {
    const V v = hn::Load(d, x + whole);
    for (int r = 0; r < 4; ++r) s[r] = hn::MulAdd(loadPart(y[r] + whole, f - whole), v, s[r]);
  }
  HWY_ALIGN float scores[4];
  hn::Store(sums4(s[0], s[1], s[2], s[3]), hn::FixedTag<float, 4>(), scores);
  for (int64_t r = 0; r < count; ++r) a.out[e + r] = (a.add ? a.out[e + r] : 0.0f) + scores[r];
}

}  // namespace

Status csrScores(const Exec& exec, const CsrScoresArgs& a) {
  return guard([&] {
    const int64_t f = a.x.cols, padded = roundUp(f, N), nnz = a.rows.indptr[a.rows.rows];
    parallelFor(a.rows.rows, 64, exec, [&](int64_t begin, int64_t end, int) {
      const Scratch x(padded);
      for (int64_t u = begin; u < end; ++u) {
        const int64_t last = a.rows.indptr[u + 1];
        if (a.rows.indptr[u] == last) continue;
        copyPadded(a.x.row(u), f, x.data());
        for (int64_t e = a.rows.indptr[u]; e < last; e += 4) four(a, e, std::min<int64_t>(4, last - e), x.data(), nnz);
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
