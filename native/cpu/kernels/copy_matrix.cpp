// A matrix into another, transposed or not, in tiles that fit the first cache.
#include <algorithm>

#include "backend/copy_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/copy_matrix.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {

Status copyMatrix(const Exec& exec, const CopyMatrixArgs& a) {
  return guard([&] {
    constexpr int64_t tile = 64;
    parallelFor(a.rows, tile, exec, [&](int64_t begin, int64_t end, int) {
      if (!a.transposed) {
        for (int64_t r = begin; r < end; ++r) {
          const float* from = a.from + r * a.fromStride;
          float* to = a.to + r * a.toStride;
          for (int64_t c = 0; c < a.cols; ++c) to[c] = a.scale * from[c];
        }
        return;
      }
      for (int64_t first = 0; first < a.cols; first += tile) {
        const int64_t last = first + tile < a.cols ? first + tile : a.cols;
        for (int64_t r = begin; r < end; ++r) {
          for (int64_t c = first; c < last; ++c) a.to[r * a.toStride + c] = a.scale * a.from[c * a.fromStride + r];
        }
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
