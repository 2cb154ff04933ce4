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
Status csrScores(const Exec& exec, const CsrScoresArgs& a) {
  return guard([&] {
    const int64_t f = a.x.cols, padded = roundUp(f, N);
    parallelFor(a.rows.rows, 64, exec, [&](int64_t begin, int64_t end, int) {
      const Scratch x(padded);
      for (int64_t u = begin; u < end; ++u) {
        const int64_t last = a.rows.indptr[u + 1];
        if (a.rows.indptr[u] == last) continue;
        copyPadded(a.x.row(u), f, x.data());
        for (int64_t e = a.rows.indptr[u]; e < last; e += 4) {
          const int64_t count = std::min<int64_t>(4, last - e);
          HWY_ALIGN float scores[4];
          fourScores(a.rows, a.y, e, count, x.data(), scores);
          for (int64_t r = 0; r < count; ++r) a.out[e + r] = (a.add ? a.out[e + r] : 0.0f) + scores[r];
        }
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
