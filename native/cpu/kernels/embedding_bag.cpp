// Sums, means and maxima of bags of table rows: bound by how fast random rows arrive from memory, so rows are
// prefetched across the bags of a chunk, and chunks hold about equal numbers of entries.
#include <algorithm>

#include "cpu/kernels/embedding_chunks.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/embedding_bag.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/embedding_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

template <RowFormat format, class D>
void bagsOf(D d, const EmbeddingBagArgs& a, int64_t first, int64_t last) {
  const BagsView& bags = a.bags;
  const int64_t cols = a.table.cols;
  const RowsAhead ahead(a.table, bags.ids, bags.offsets[first], bags.offsets[last]);
  for (int64_t b = first; b < last; ++b) {
    const int64_t end = bags.offsets[b + 1];
    int64_t begin = bags.offsets[b];
    while (begin < end && bags.ids[begin] == bags.padding) ahead.at(begin++);
    float* out = a.out + b * cols;
    int32_t* winners = a.winners ? a.winners + b * cols : nullptr;
    if (begin == end) {
      std::fill_n(out, cols, 0.0f);
      if (winners) std::fill_n(winners, cols, -1);
    } else if (a.mode == BagMode::max) {
      maxRows<format>(d, a.table, bags, begin, end, ahead, out, winners);
    } else {
      sumRows<format>(d, a.table, bags, begin, end, a.mode == BagMode::mean ? rowsIn(bags, begin, end) : 1.0f, ahead,
                      out);
    }
  }
}

template <RowFormat format>
void allBags(const Exec& exec, const EmbeddingBagArgs& a) {
  const BagChunks chunks(a.bags, a.table.rowBytes());
  parallelFor(chunks.work(), chunks.grain(), exec, [&](int64_t begin, int64_t end, int) {
    const int64_t first = chunks.bagAt(begin), last = chunks.bagAt(end);
    withVectors<format>(a.table.cols, [&](auto d) { bagsOf<format>(d, a, first, last); });
  });
}

}  // namespace

Status embeddingBag(const Exec& exec, const EmbeddingBagArgs& a) {
  return guard([&] {
    switch (a.table.format) {
      case RowFormat::float32:
        return allBags<RowFormat::float32>(exec, a);
      case RowFormat::float16:
        return allBags<RowFormat::float16>(exec, a);
      case RowFormat::bfloat16:
        return allBags<RowFormat::bfloat16>(exec, a);
      case RowFormat::int8:
        return allBags<RowFormat::int8>(exec, a);
      case RowFormat::int4:
        return allBags<RowFormat::int4>(exec, a);
    }
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
