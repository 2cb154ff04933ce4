// Exact top-k over float32: scan, filter, keep the best.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/topk.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

static float dot(const float* a, const float* b, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
  float out = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) out += a[i] * b[i];
  return out;
}

Status topk(const Exec& exec, const TopkArgs& a) {
  return guard([&] {
    parallelFor(a.queries.rows, 1, exec, [&](int64_t begin, int64_t end, int) {
      std::vector<std::pair<float, int32_t>> all;
      for (int64_t q = begin; q < end; ++q) {
        all.clear();
        for (int64_t i = 0; i < a.items.rows; ++i) {
          if (a.filter.allowed && !(a.filter.allowed[i / 64] >> (i % 64) & 1)) continue;
          if (a.filter.seenPtr) {
            const int64_t row = a.filter.seenRows ? a.filter.seenRows[q] : q;
            const int32_t* first = a.filter.seenIds + a.filter.seenPtr[row];
            const int32_t* last = a.filter.seenIds + a.filter.seenPtr[row + 1];
            if (std::binary_search(first, last, static_cast<int32_t>(i))) continue;
          }
          all.emplace_back(-dot(a.queries.row(q), a.items.row(i), a.items.cols), static_cast<int32_t>(i));
        }
        const int64_t k = std::min<int64_t>(a.k, static_cast<int64_t>(all.size()));
        std::partial_sort(all.begin(), all.begin() + k, all.end());
        for (int64_t j = 0; j < a.k; ++j) {
          a.ids[q * a.k + j] = j < k ? all[j].second : -1;
          a.scores[q * a.k + j] = j < k ? -all[j].first : std::numeric_limits<float>::quiet_NaN();
        }
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
