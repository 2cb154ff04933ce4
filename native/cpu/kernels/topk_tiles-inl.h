// The scan of many queries: register tiles, at the speed of the multiply-add units. Scores are compared with the
// thresholds where they are, in registers.
#if defined(TOPKNOT_TOPK_TILES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_TOPK_TILES_INL
#undef TOPKNOT_TOPK_TILES_INL
#else
#define TOPKNOT_TOPK_TILES_INL
#endif

#include <hwy/cache_control.h>

#include <type_traits>

#include "cpu/kernels/load-inl.h"
#include "cpu/kernels/topk_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr int64_t blockBytes = 48 << 10;  // items, as floats, that stay in the second-level cache for all queries

/// Items [begin, end) against panels of V vectors of queries. Blocks of items small enough for the cache meet every
/// panel in turn, while the next block is fetched.
template <class T, int V, bool affine>
void scanTiles(const Block<TopkScan>& b, Candidates& candidates, int64_t begin, int64_t end) {
  constexpr int R = tileRows<V>();
  constexpr int64_t width = V * lanes;
  const FloatTag d;
  const TopkScan& scan = b.scan;
  const int64_t dims = scan.args.items.cols;
  const T* all = static_cast<const T*>(scan.args.items.data);
  const int64_t blockRows = std::max<int64_t>(1, blockBytes / (4 * dims * R)) * R;
  const int64_t panels = (b.queries + width - 1) / width;
  const AlignedFloats scratch(blockRows * dims), terms(2 * (blockRows + lanes));
  float* scales = terms.data();
  float* offsets = scales + blockRows + lanes;

  for (int64_t block = begin; block < end; block += blockRows) {
    const int64_t rows = std::min(blockRows, end - block);
    const int64_t tiles = (rows + R - 1) / R;
    const T* stored = all + block * dims;
    const float* items = scratch.data();
    if (std::is_same_v<T, float> && !scan.items.listed() && rows % R == 0) {
      items = reinterpret_cast<const float*>(stored);
    } else {  // copied where they are not adjacent, do not fill the last tile, or are to be converted
      if (scan.items.listed()) {
        for (int64_t r = 0; r < rows; ++r) {
          convertFloats(all + scan.items.at(block + r) * dims, dims, scratch.data() + r * dims);
        }
      } else {
        convertFloats(stored, rows * dims, scratch.data());
      }
      std::fill(scratch.data() + rows * dims, scratch.data() + tiles * R * dims, 0.0f);
    }
    if (affine) itemTerms(scan, block, rows, scales, offsets);
    const char* next = reinterpret_cast<const char*>(stored + rows * dims);
    const int64_t nextBytes = scan.items.listed() ? 0 : std::min(blockRows, end - block - rows) * dims * sizeof(T);
    const int64_t step = (nextBytes / 64 + panels * tiles - 1) / (panels * tiles) * 64;
    int64_t fetched = 0;

    for (int64_t p = 0; p < panels; ++p) {
      const float* panel = b.packed + p * width * dims;
      const float* thresholds = candidates.thresholds() + p * width;
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t fetch = std::min(fetched + step, nextBytes);
        for (; fetched < fetch; fetched += 64) hwy::Prefetch(next + fetched);
        Floats scores[R][V];
        multiplyTile<V>(panel, items + t * R * dims, dims, 1, dims, scores);
        if (affine) {
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            const Floats scale = hn::Set(d, scales[t * R + r]), offset = hn::Set(d, offsets[t * R + r]);
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) scores[r][v] = hn::MulAdd(scores[r][v], scale, offset);
          }
        }
        auto dropped = hn::Le(scores[0][0], hn::LoadU(d, thresholds));
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
          const Floats threshold = hn::LoadU(d, thresholds + v * lanes);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) dropped = hn::And(dropped, hn::Le(scores[r][v], threshold));
        }
        if (!hn::AllTrue(d, dropped)) {
          HWY_ALIGN float stored[R * width];
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) hn::Store(scores[r][v], d, stored + r * width + v * lanes);
          }
          offerSurvivors<V>(b, candidates, p * width, block + t * R, std::min<int64_t>(R, rows - t * R), stored);
        }
      }
    }
  }
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
