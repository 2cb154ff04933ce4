// out = scale mᵀm: fixed blocks of rows in float32, their sums in float64 in the order of the blocks.
#include <algorithm>
#include <vector>

#include "cpu/kernels/als_schedule.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/gram.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/als_dense-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {

Status gram(const Exec& exec, const GramArgs& a) {
  return guard([&] {
    const int64_t f = a.m.cols, padded = roundUp(f, N), panels = padded / N;
    const int64_t block = std::max<int64_t>(512, (a.m.rows + 127) / 128), blocks = (a.m.rows + block - 1) / block;
    const int64_t depth = std::clamp<int64_t>(4096 / padded / 4 * 4, 16, 64), stride = (depth + 2) * N;
    const Scratch partial(std::max<int64_t>(blocks, 1) * padded * padded);
    parallelFor(blocks, 1, exec, [&](int64_t b, int64_t, int) {
      float* c = partial.data() + b * padded * padded;
      std::fill_n(c, padded * padded, 0.0f);
      const Scratch packed(panels * stride);
      const int64_t last = std::min(a.m.rows, (b + 1) * block);
      for (int64_t begin = b * block; begin < last; begin += depth) {
        const int64_t count = std::min(depth, last - begin);
        packPanels(a.m.row(begin), count, f, packed.data(), stride);
        for (int64_t i = 0; i < f; i += 4) rankUpdate4<1>(packed.data(), stride, panels, count, i, c, padded);
      }
    });
    if (exec.cancelled()) return;
    parallelFor(f, 8, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = i; j < f; ++j) {
          double sum = 0;
          for (int64_t b = 0; b < blocks; ++b) sum += partial.data()[(b * padded + i) * padded + j];
          a.out[i * f + j] = a.out[j * f + i] = static_cast<float>(sum * static_cast<double>(a.scale));
        }
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
