// What lies between the blocks of a half-sweep of iALS++: copies of columns, and one pass over the entries.
#include "backend/als_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/als_block.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {

Status alsBlock(const Exec& exec, const AlsBlockArgs& a) {
  return guard([&] {
    const int64_t f = a.fixed.cols, size = a.size;
    parallelFor(a.rows.indptr[a.rows.rows], 1 << 15, exec, [&](int64_t from, int64_t to, int) {
      for (int64_t e = from; e < to; ++e) {
        const float w = a.rows.values[e];
        a.targets[e] = w + a.bonus - w * a.scores[e];
      }
    });
    parallelFor(a.rows.rows, 1024, exec, [&](int64_t from, int64_t to, int) {
      for (int64_t u = from; u < to; ++u) {
        const float* x = a.x.row(u) + a.begin;
        for (int64_t k = 0; k < size; ++k) a.offset[u * size + k] = -a.reg[u] * x[k];
      }
    });
    parallelFor(a.fixed.rows, 1024, exec, [&](int64_t from, int64_t to, int) {
      for (int64_t i = from; i < to; ++i) {
        const float* y = a.fixed.row(i) + a.begin;
        for (int64_t k = 0; k < size; ++k) a.fixedBlock[i * size + k] = y[k];
      }
    });
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t k = 0; k < size; ++k) a.gramBlock[i * size + k] = a.gram[(a.begin + i) * f + a.begin + k];
    }
  });
}

Status alsStep(const Exec& exec, const AlsStepArgs& a) {
  return guard([&] {
    parallelFor(a.rows.rows, 1024, exec, [&](int64_t from, int64_t to, int) {
      for (int64_t u = from; u < to; ++u) {
        const bool empty = a.rows.indptr[u] == a.rows.indptr[u + 1];
        float* x = a.x + u * a.f + a.begin;
        for (int64_t k = 0; k < a.size; ++k) x[k] = empty ? 0.0f : x[k] + a.step[u * a.size + k];
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
