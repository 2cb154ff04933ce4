// Squared lengths of rows, summed in float64 and rounded once.
#include "backend/topk_args.h"
#include "cpu/kernels/guard.h"
#include "cpu/kernels/pair_score.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/squared_norms.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {

Status squaredNorms(const Exec& exec, const SquaredNormsArgs& a) {
  return guard([&] {
    parallelFor(a.m.rows, 4096, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        a.out[i] = withRow(a.m, i, [&](auto row) { return static_cast<float>(pairDot(row, row, a.m.cols)); });
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
