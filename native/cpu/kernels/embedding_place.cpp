// The bag and the weight of every entry, in the order of the groups that embedding_group.cpp has sorted them into.
#include <vector>

#include "backend/embedding_args.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/embedding_place.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {

Status embeddingPlace(const Exec& exec, const EmbeddingPlaceArgs& a) {
  return guard([&] {
    const BagsView& bags = a.bags;
    const size_t entries = static_cast<size_t>(bags.offsets[bags.bags]);
    std::vector<int32_t> bagOf(entries);
    std::vector<float> weightOf(a.mean ? entries : 0);
    parallelFor(bags.bags, 256, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t b = begin; b < end; ++b) {
        int64_t count = 0;
        for (int64_t i = bags.offsets[b]; i < bags.offsets[b + 1]; ++i) {
          bagOf[static_cast<size_t>(i)] = static_cast<int32_t>(b);
          count += bags.ids[i] != bags.padding;
        }
        if (!a.mean) continue;
        for (int64_t i = bags.offsets[b]; i < bags.offsets[b + 1]; ++i) {
          weightOf[static_cast<size_t>(i)] = 1.0f / static_cast<float>(count);
        }
      }
    });
    const float* weights = a.mean ? weightOf.data() : bags.weights;
    parallelFor(a.count, 1 << 14, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int32_t entry = a.order[i];
        a.bagOf[i] = bagOf[static_cast<size_t>(entry)];
        if (a.weightOf) a.weightOf[i] = weights[entry];
      }
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
