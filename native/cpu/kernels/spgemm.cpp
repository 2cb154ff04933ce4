// Sparse times sparse into dense rows: scattered additions, which no vector instruction of these sets can do.
#include <algorithm>

#include "backend/spmm_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/spgemm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {

Status spgemm(const Exec& exec, const SpgemmArgs& a) {
  return guard([&] {
    parallelFor(a.count, 8, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t q = begin; q < end; ++q) {
        float* out = a.out + q * a.b.cols;
        std::fill_n(out, a.b.cols, 0.0f);
        const int64_t row = a.rows ? a.rows[q] : q;
        for (int64_t e = a.a.indptr[row]; e < a.a.indptr[row + 1]; ++e) {
          const int64_t at = a.a.indices[e];
          const float weight = a.a.values[e];
          for (int64_t f = a.b.indptr[at]; f < a.b.indptr[at + 1]; ++f) {
            out[a.b.indices[f]] += weight * a.b.values[f];
          }
        }
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
