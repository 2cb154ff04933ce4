// The 8-bit codes of items.
#include "cpu/kernels/int8_codes.h"

#include <limits>

#include "backend/topk_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/int8_codes.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {

Status int8Codes(const Exec& exec, const Int8CodesArgs& a) {
  return guard([&] {
    const int64_t dims = a.items.cols;
    parallelFor(a.items.rows, std::max<int64_t>(1, 65536 / dims), exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        withRow(a.items, i, [&](auto x) {
          const double norm = a.unit ? pairDot(x, x, dims) : 1;
          const double factor = norm > 0 ? 1 / std::sqrt(norm) : 0;
          const Int8Row row = quantizeRow(x, dims, factor, 127, 128, a.codes + i * dims);
          a.scales[i] = row.scale;
          // Rounded up, and more than float64's own rounding.
          const float residual = static_cast<float>(row.residual * (1 + 1e-6));
          a.residuals[i] = std::nextafter(residual, std::numeric_limits<float>::infinity());
        });
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
