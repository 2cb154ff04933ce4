// What the ways of scanning for top-k do alike, once a block of queries has been packed.
#if defined(TOPKNOT_TOPK_BLOCK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_TOPK_BLOCK_INL
#undef TOPKNOT_TOPK_BLOCK_INL
#else
#define TOPKNOT_TOPK_BLOCK_INL
#endif

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "cpu/kernels/tile-inl.h"
#include "cpu/kernels/topk_scan.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// One block of queries against all items: made once per block, shared by the threads.
template <class Scan>
struct Block {
  const Scan& scan;
  int64_t first, queries;               // the block's queries are [first, first + queries) of the call
  const typename Scan::Packed* packed;  // rows: queries padded with zeros to whole vectors; tiles: panels
};

/// Offers the survivors among `rows` items from j0 on; scores is [rows][V vectors], whose first lane is the block's
/// query `local`.
template <int V, class Block>
HWY_NOINLINE void offerSurvivors(const Block& b, Candidates& candidates, int64_t local, int64_t j0, int64_t rows,
                                 const float* scores) {
  const FloatTag d;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t v = 0; v < V; ++v, scores += lanes) {
      const int64_t first = local + v * lanes;
      const auto dropped = hn::Le(hn::Load(d, scores), hn::LoadU(d, candidates.thresholds() + first));
      uint64_t survivors = 0;
      hn::StoreMaskBits(d, hn::Not(dropped), reinterpret_cast<uint8_t*>(&survivors));
      for (; survivors; survivors &= survivors - 1) {
        const int64_t q = first + std::countr_zero(survivors);
        if (q < b.queries) b.scan.offer(candidates, b.first + q, q, j0 + r, scores[q - first]);
      }
    }
  }
}

/// Scale and offset (topk_scan.h) of items [begin, begin + n), and 0 up to the next whole vector.
inline void itemTerms(const TopkScan& scan, int64_t begin, int64_t n, float* scales, float* offsets) {
  const FloatTag d;
  const auto nan = hn::Set(d, std::numeric_limits<float>::quiet_NaN());
  for (int64_t j = 0; j < n; j += lanes) {
    HWY_ALIGN float norms[lanes] = {};
    const int64_t count = std::min<int64_t>(lanes, n - j);
    if (scan.items.listed()) {
      for (int64_t i = 0; i < count; ++i) norms[i] = scan.args.itemNorms[scan.items.at(begin + j + i)];
    } else {
      std::memcpy(norms, scan.args.itemNorms + begin + j, static_cast<size_t>(count) * sizeof(float));
    }
    const Floats norm = hn::Load(d, norms);
    if (scan.args.metric == Metric::cosine) {
      const auto safe =
          hn::And(hn::Ge(norm, hn::Set(d, TopkScan::safeMin)), hn::Le(norm, hn::Set(d, TopkScan::safeMax)));
      const Floats inverse = hn::Div(hn::Set(d, 1.0f), hn::Sqrt(norm));
      const Floats scale = hn::IfThenElse(safe, inverse, hn::IfThenZeroElse(hn::Eq(norm, hn::Zero(d)), nan));
      hn::StoreU(scale, d, scales + j);
      hn::StoreU(hn::Zero(d), d, offsets + j);
    } else {
      const Floats offset = hn::Mul(norm, hn::Set(d, -scan.normShare()));
      hn::StoreU(hn::Set(d, 1.0f), d, scales + j);
      hn::StoreU(hn::IfThenElse(hn::Le(norm, hn::Set(d, TopkScan::safeMax)), offset, nan), d, offsets + j);
    }
  }
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
