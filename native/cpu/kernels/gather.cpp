// Rows out of a table, in the order of their ids.
#include <cstring>

#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/gather.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/embedding_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

void copyRows(const GatherArgs& a, int64_t begin, int64_t end) {
  const RowsAhead ahead(a.table, a.ids, begin, end);
  const int64_t bytes = a.table.rowBytes();
  for (int64_t i = begin; i < end; ++i) {
    ahead.at(i);
    std::memcpy(static_cast<char*>(a.out) + i * bytes, static_cast<const char*>(a.table.data) + a.ids[i] * bytes,
                static_cast<size_t>(bytes));
  }
}

template <RowFormat format>
void widenRows(const GatherArgs& a, int64_t begin, int64_t end) {
  const RowsAhead ahead(a.table, a.ids, begin, end);
  const int64_t bytes = a.table.rowBytes();
  withVectors<format>(a.table.cols, [&](auto d) {
    for (int64_t i = begin; i < end; ++i) {
      ahead.at(i);
      const int64_t id = a.ids[i];
      const char* row = static_cast<const char*>(a.table.data) + id * bytes;
      float* out = static_cast<float*>(a.out) + i * a.table.cols;
      const auto scale = hn::Set(d, a.table.scale[id]), bias = hn::Set(d, a.table.bias[id]);
      forColumnBlocks<4>(d, a.table.cols, [&](int64_t c, auto size) HWY_ATTR {
        for (int k = 0; k < decltype(size)::value; ++k) {
          const int64_t at = c + k * static_cast<int64_t>(hn::Lanes(d));
          hn::StoreU(hn::MulAdd(loadColumns<format>(d, row, at), scale, bias), d, out + at);
        }
      });
    }
  });
}

}  // namespace

Status gather(const Exec& exec, const GatherArgs& a) {
  return guard([&] {
    const int64_t grain =
        std::clamp<int64_t>((int64_t{128} << 10) / std::max<int64_t>(a.table.rowBytes(), 1), 16, 4096);
    parallelFor(a.count, grain, exec, [&](int64_t begin, int64_t end, int) {
      if (a.table.format == RowFormat::int8) return widenRows<RowFormat::int8>(a, begin, end);
      if (a.table.format == RowFormat::int4) return widenRows<RowFormat::int4>(a, begin, end);
      copyRows(a, begin, end);
    });
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
