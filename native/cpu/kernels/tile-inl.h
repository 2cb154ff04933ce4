// The register tile of the batched scans and of matrix products: R rows (items) against V vectors (of queries). Queries
// lie in the lanes, packed dimension by dimension; the elements of an item are broadcast from where they are, so items
// need no packing and any number of dimensions works without a tail. Each score is one chain of multiply-adds in the
// order of the dimensions: it depends on the pair alone.
#include <cstdint>

#include <hwy/highway.h>

#if defined(TOPKNOT_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_TILE_INL
#undef TOPKNOT_TILE_INL
#else
#define TOPKNOT_TILE_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using Floats = hn::Vec<FloatTag>;
inline constexpr int64_t lanes = hn::MaxLanes(FloatTag());

/// Rows of a tile with V vectors of queries: as many as the registers hold beside V queries and a broadcast.
template <int V>
constexpr int tileRows() {
#if HWY_TARGET == HWY_SSE4
  return V == 1 ? 8 : 4;
#elif HWY_TARGET == HWY_AVX2
  return V == 1 ? 12 : 6;
#else
  return 12;  // 32 registers
#endif
}

/// scores[r][v] = row r · the queries of vector v. Element k of row r is rows[r * stride + k * step]; panel holds V
/// vectors for each of `dims` dimensions.
template <int V, int R = tileRows<V>()>
HWY_INLINE void multiplyTile(const float* HWY_RESTRICT panel, const float* HWY_RESTRICT rows, int64_t stride,
                             int64_t step, int64_t dims, Floats (&scores)[R][V]) {
  const FloatTag d;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) scores[r][v] = hn::Zero(d);
  }
  const float* end = rows + dims * step;
  for (; rows != end; rows += step, panel += V * lanes) {
    Floats query[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) query[v] = hn::Load(d, panel + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Floats item = hn::Set(d, rows[r * stride]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) scores[r][v] = hn::MulAdd(item, query[v], scores[r][v]);
    }
  }
}

/// Packs `count` queries of `dims` floats, each times its scale, into panels of `width` lanes; the rest is zero.
inline void packQueries(const float* queries, const float* scales, int64_t count, int64_t dims, int64_t width,
                        float* panels) {
  for (int64_t first = 0; first < count; first += width, panels += width * dims) {
    for (int64_t lane = 0; lane < width; ++lane) {
      const int64_t q = first + lane;
      for (int64_t k = 0; k < dims; ++k) {
        panels[k * width + lane] = q < count ? queries[q * dims + k] * (scales ? scales[q] : 1.0f) : 0.0f;
      }
    }
  }
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
