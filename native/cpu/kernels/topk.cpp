// Exact top-k over float32 and 16-bit items. Three queries or fewer: items are read row by row (topk_rows-inl.h). More:
// register tiles (topk_tiles-inl.h). Either way scores never reach memory; only survivors of the threshold do
// (topk_scan.h, candidates.h).
#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/kernels/guard.h"
#include "cpu/kernels/topk_scan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/topk.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/topk_rows-inl.h"
#include "cpu/kernels/topk_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr int64_t rowQueries = 3;       // at most so many queries are scanned row by row
constexpr int64_t chunkWork = 1 << 24;  // multiply-adds that are worth handing to a thread
constexpr int64_t keptBytes = 256 << 20;
constexpr int64_t packedBytes = 256 << 10;

using Scan = void (*)(const Block<TopkScan>&, Candidates&, int64_t, int64_t);

template <class T, bool affine>
Scan chosenScan(bool byRows, int64_t queries, int vectors) {
  if (!byRows) return vectors == 1 ? scanTiles<T, 1, affine> : scanTiles<T, 2, affine>;
  if (queries == 1) return scanRows<T, 1, affine>;
  return queries == 2 ? scanRows<T, 2, affine> : scanRows<T, 3, affine>;
}

Scan chosenScan(const TopkScan& scan, bool byRows, int64_t queries, int vectors) {
  const auto of = [&]<class T>(T) {
    return scan.affine() ? chosenScan<T, true>(byRows, queries, vectors)
                         : chosenScan<T, false>(byRows, queries, vectors);
  };
  switch (scan.args.items.type) {
    case FloatType::float16:
      return of(Float16{});
    case FloatType::bfloat16:
      return of(BFloat16{});
    default:
      return of(0.0f);
  }
}

void searchBlock(const Exec& exec, const TopkScan& scan, int64_t first, int64_t queries) {
  const TopkArgs& a = scan.args;
  const int64_t dims = a.items.cols;
  // Rows or tiles by the size of the whole call, not of the block: their sums differ in the last bits.
  const bool byRows = a.queries.rows <= rowQueries;
  const int vectors = a.queries.rows <= lanes ? 1 : 2;
  const int64_t width = byRows ? queries : vectors * lanes;
  const int64_t padded = (queries + width - 1) / width * width;
  const int64_t paddedDims = (dims + lanes - 1) / lanes * lanes;

  const AlignedFloats packed(padded * paddedDims);
  const float* scales = scan.queryScales() ? scan.queryScales() + first : nullptr;
  if (byRows) {
    std::fill_n(packed.data(), padded * paddedDims, 0.0f);
    for (int64_t q = 0; q < queries; ++q) {
      const float scale = scales ? scales[q] : 1.0f;
      for (int64_t k = 0; k < dims; ++k) packed.data()[q * paddedDims + k] = a.queries.row(first + q)[k] * scale;
    }
  } else {
    packQueries(a.queries.row(first), scales, queries, dims, width, packed.data());
  }

  const Block<TopkScan> block{scan, first, queries, packed.data()};
  const Scan run = chosenScan(scan, byRows, queries, vectors);
  const int64_t rows = byRows ? (512 << 10) / a.items.rowBytes() : chunkWork / (padded * dims);
  const int64_t whole = 4 * std::max<int64_t>(lanes, tileRows<1>());
  const int64_t grain = std::max<int64_t>(1, rows / whole) * whole;
  CandidatesBySlot kept(maxThreads);
  const auto part = [&](int64_t begin, int64_t end, int slot) {
    if (!kept[slot]) {
      kept[slot] = std::make_unique<Candidates>(queries, padded, a.k, scan.items.count, scan.shifts() + first);
    }
    run(block, *kept[slot], begin, end);
  };
  if (byRows) parallelFor(scan.items.count, grain, exec, part);
  else scanInPhases(exec, scan.items.count, grain, whole, a.k, queries, kept, part);
  if (!exec.cancelled()) scan.finish(exec, first, queries, kept);
}

}  // namespace

Status topk(const Exec& exec, const TopkArgs& a) {
  return guard([&] {
    const TopkScan scan(a);
    const int64_t perQuery =
        Candidates::capacity(a.k, a.items.rows) * static_cast<int64_t>(sizeof(Key)) * threadCount();
    const int64_t most = std::min(keptBytes / perQuery, packedBytes / (4 * std::max<int64_t>(a.items.cols, 1)));
    const int64_t step = most < 32 ? std::max<int64_t>(most, 1) : most / 32 * 32;
    for (int64_t first = 0; first < a.queries.rows && !exec.cancelled(); first += step) {
      searchBlock(exec, scan, first, std::min(step, a.queries.rows - first));
    }
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
