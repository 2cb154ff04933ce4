// Exact top-k over float32. Three queries or fewer: items are read row by row at the speed of memory. More: register
// tiles at the speed of the multiply-add units, whose scores are compared with the thresholds where they are, in
// registers. Either way scores never reach memory; only survivors of the threshold do (topk_scan.h, candidates.h).
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "cpu/kernels/guard.h"
#include "cpu/kernels/topk_scan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/topk.cpp"
#include <hwy/foreach_target.h>
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "cpu/kernels/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr int64_t rowQueries = 3;         // at most so many queries are scanned row by row
constexpr int64_t blockBytes = 48 << 10;  // items that stay in the second-level cache while all queries meet them
constexpr int64_t prefetchFloats = 256;   // how far ahead of the row in hand memory is asked for
constexpr int64_t prefetchRows = 16;      // the same where rows are not adjacent
constexpr int64_t chunkWork = 1 << 24;    // multiply-adds that are worth handing to a thread
constexpr int64_t keptBytes = 256 << 20;
constexpr int64_t packedBytes = 256 << 10;

/// One block of queries against all items: made once per block, shared by the threads.
struct Block {
  const TopkScan& scan;
  int64_t first, queries;  // the block's queries are [first, first + queries) of the call
  const float* packed;     // rows: queries padded with zeros to whole vectors; tiles: panels
};

/// Offers the survivors among `rows` items from j0 on; scores is [rows][V vectors], whose first lane is the block's
/// query `local`.
template <int V>
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
void itemTerms(const TopkScan& scan, int64_t begin, int64_t n, float* scales, float* offsets) {
  const FloatTag d;
  const auto nan = hn::Set(d, std::numeric_limits<float>::quiet_NaN());
  for (int64_t j = 0; j < n; j += lanes) {
    HWY_ALIGN float norms[lanes] = {};
    const int64_t count = std::min<int64_t>(lanes, n - j);
    if (scan.listed()) {
      for (int64_t i = 0; i < count; ++i) norms[i] = scan.args.itemNorms[scan.itemAt(begin + j + i)];
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

/// Adds up the lanes of each of `lanes` vectors: lane i of the result is the sum of v[i].
HWY_INLINE Floats sumEach(const Floats (&of)[lanes]) {
  const FloatTag d;
  Floats v[lanes];
#pragma GCC unroll 16
  for (int64_t i = 0; i < lanes; ++i) v[i] = of[i];
#pragma GCC unroll 4
  for (int64_t n = lanes / 2; n > 0; n /= 2) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < n; ++i) {
      v[i] = hn::Add(hn::ConcatEven(d, v[2 * i + 1], v[2 * i]), hn::ConcatOdd(d, v[2 * i + 1], v[2 * i]));
    }
  }
  return v[0];
}

/// The dot products of one row with Q packed queries, still spread over the lanes. `rest` is zero behind the last
/// dims % lanes elements.
template <int Q>
HWY_INLINE void dotRow(const float* HWY_RESTRICT row, const float* HWY_RESTRICT queries, int64_t dims, int64_t padded,
                       float* HWY_RESTRICT rest, Floats (&sums)[Q][lanes], int64_t r) {
  constexpr int unroll = Q == 1 ? 4 : 2;  // chains, to hide the latency of multiply-adds
  const FloatTag d;
  Floats parts[unroll][Q];
  const auto add = [&](int u, const float* x, int64_t k) HWY_ATTR {
    const Floats v = hn::LoadU(d, x);
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) parts[u][q] = hn::MulAdd(v, hn::Load(d, queries + q * padded + k), parts[u][q]);
  };
#pragma GCC unroll 4
  for (int u = 0; u < unroll; ++u) {
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) parts[u][q] = hn::Zero(d);
  }
  int64_t k = 0;
  for (; k + unroll * lanes <= dims; k += unroll * lanes) {
#pragma GCC unroll 4
    for (int u = 0; u < unroll; ++u) add(u, row + k + u * lanes, k + u * lanes);
  }
  for (; k + lanes <= dims; k += lanes) add(0, row + k, k);
  if (k < dims) {
    std::memcpy(rest, row + k, static_cast<size_t>(dims - k) * sizeof(float));
    add(1, rest, k);
  }
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) {
    Floats sum = hn::Add(parts[0][q], parts[1][q]);
    if constexpr (unroll == 4) sum = hn::Add(sum, hn::Add(parts[2][q], parts[3][q]));
    sums[q][r] = sum;
  }
}

/// Items [begin, end) against Q queries, `lanes` items at a time, each row read from its start to its end: interleaving
/// rows would defeat the prefetcher.
template <int Q, bool affine>
void scanRows(const Block& b, Candidates& candidates, int64_t begin, int64_t end) {
  const FloatTag d;
  const TopkScan& scan = b.scan;
  const MatrixView items = scan.args.items;
  const int64_t dims = items.cols;
  const int64_t padded = (dims + lanes - 1) / lanes * lanes;
  const bool listed = scan.listed();
  HWY_ALIGN float rest[lanes] = {};
  HWY_ALIGN float scales[lanes] = {}, offsets[lanes] = {};
  Floats sums[Q][lanes];
  for (int q = 0; q < Q; ++q) {
    for (int64_t r = 0; r < lanes; ++r) sums[q][r] = hn::Zero(d);
  }
  for (int64_t j = begin; j < end; j += lanes) {
    const int64_t count = std::min<int64_t>(lanes, end - j);
    const float* row = items.row(j);
    for (int64_t r = 0; r < count; ++r, row += dims) {
      const float* ahead = row + prefetchFloats;
      if (listed) {
        row = items.row(scan.itemAt(j + r));
        ahead = items.row(scan.itemAt(std::min(j + r + prefetchRows, end - 1)));
      }
      for (int64_t k = 0; k < dims; k += 16) hwy::Prefetch(ahead + k);
      dotRow<Q>(row, b.packed, dims, padded, rest, sums, r);
    }
    if (affine) itemTerms(scan, j, count, scales, offsets);
    for (int q = 0; q < Q; ++q) {
      Floats score = sumEach(sums[q]);
      if (affine) score = hn::MulAdd(score, hn::Load(d, scales), hn::Load(d, offsets));
      if (!hn::AllTrue(d, hn::Le(score, hn::Set(d, candidates.thresholds()[q])))) {
        HWY_ALIGN float scores[lanes];
        hn::Store(score, d, scores);
        for (int64_t r = 0; r < count; ++r) {
          if (!(scores[r] <= candidates.thresholds()[q])) scan.offer(candidates, b.first + q, q, j + r, scores[r]);
        }
      }
    }
  }
}

/// Items [begin, end) against panels of V vectors of queries. Blocks of items small enough for the cache meet every
/// panel in turn, while the next block is fetched.
template <int V, bool affine>
void scanTiles(const Block& b, Candidates& candidates, int64_t begin, int64_t end) {
  constexpr int R = tileRows<V>();
  constexpr int64_t width = V * lanes;
  const FloatTag d;
  const TopkScan& scan = b.scan;
  const int64_t dims = scan.args.items.cols;
  const int64_t blockRows = std::max<int64_t>(1, blockBytes / (4 * dims * R)) * R;
  const int64_t panels = (b.queries + width - 1) / width;
  const AlignedFloats scratch(blockRows * dims), terms(2 * (blockRows + lanes));
  float* scales = terms.data();
  float* offsets = scales + blockRows + lanes;

  for (int64_t block = begin; block < end; block += blockRows) {
    const int64_t rows = std::min(blockRows, end - block);
    const int64_t tiles = (rows + R - 1) / R;
    const float* items = scan.args.items.row(block);
    if (scan.listed() || rows % R) {  // copied where they are not adjacent or do not fill the last tile
      for (int64_t r = 0; r < rows; ++r) {
        std::memcpy(scratch.data() + r * dims, scan.args.items.row(scan.itemAt(block + r)), dims * sizeof(float));
      }
      std::fill(scratch.data() + rows * dims, scratch.data() + tiles * R * dims, 0.0f);
      items = scratch.data();
    }
    if (affine) itemTerms(scan, block, rows, scales, offsets);
    const char* next = reinterpret_cast<const char*>(items + rows * dims);
    const int64_t nextBytes = scan.listed() ? 0 : std::min(blockRows, end - block - rows) * dims * 4;
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

using Scan = void (*)(const Block&, Candidates&, int64_t, int64_t);

Scan rowScan(int64_t queries, bool affine) {
  if (queries == 1) return affine ? scanRows<1, true> : scanRows<1, false>;
  if (queries == 2) return affine ? scanRows<2, true> : scanRows<2, false>;
  return affine ? scanRows<3, true> : scanRows<3, false>;
}

Scan tileScan(int vectors, bool affine) {
  if (vectors == 1) return affine ? scanTiles<1, true> : scanTiles<1, false>;
  return affine ? scanTiles<2, true> : scanTiles<2, false>;
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

  const Block block{scan, first, queries, packed.data()};
  const Scan run = byRows ? rowScan(queries, scan.affine()) : tileScan(vectors, scan.affine());
  const int64_t rows = byRows ? (512 << 10) / (4 * dims) : chunkWork / (padded * dims);
  const int64_t whole = 4 * std::max<int64_t>(lanes, tileRows<1>());
  const int64_t grain = std::max<int64_t>(1, rows / whole) * whole;
  CandidatesBySlot kept(maxThreads);
  parallelFor(scan.count, grain, exec, [&](int64_t begin, int64_t end, int slot) {
    if (!kept[slot]) {
      kept[slot] = std::make_unique<Candidates>(queries, padded, a.k, scan.count, scan.shifts() + first);
    }
    run(block, *kept[slot], begin, end);
  });
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
