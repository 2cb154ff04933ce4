// Exact top-k over float32. Three queries or fewer: items are read row by row at the speed of memory. More: register
// tiles at the speed of the multiply-add units, whose scores are compared with the thresholds where they are, in
// registers. Either way scores never reach memory; only survivors of the threshold do (topk_scan.h, candidates.h).
#include <algorithm>
#include <cstring>
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
constexpr int64_t chunkWork = 1 << 24;    // multiply-adds that are worth handing to a thread
constexpr int64_t keptBytes = 256 << 20;
constexpr int64_t packedBytes = 256 << 10;

/// One block of queries against all items: made once per block, shared by the threads.
struct Block {
  const TopkScan& scan;
  int64_t first, queries;  // the block's queries are [first, first + queries) of the call
  const float* packed;     // rows: queries padded with zeros to whole vectors; tiles: panels
};

/// Survivors among `rows` items from j0 on; scores is [rows][width], lane 0 being the block's query `local`.
HWY_NOINLINE void offerSurvivors(const Block& b, Candidates& candidates, int64_t local, int64_t j0, int64_t rows,
                                 int64_t width, const float* scores) {
  const int64_t count = std::min(width, b.queries - local);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t q = 0; q < count; ++q) {
      const float score = scores[r * width + q];
      if (!(score <= candidates.thresholds()[local + q])) {
        b.scan.offer(candidates, b.first + local + q, local + q, j0 + r, score);
      }
    }
  }
}

/// Adds up the lanes of each of `lanes` vectors: lane i of the result is the sum of v[i].
HWY_INLINE Floats sumEach(Floats (&v)[lanes]) {
  const FloatTag d;
#pragma GCC unroll 4
  for (int64_t n = lanes / 2; n > 0; n /= 2) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < n; ++i) {
      v[i] = hn::Add(hn::ConcatEven(d, v[2 * i + 1], v[2 * i]), hn::ConcatOdd(d, v[2 * i + 1], v[2 * i]));
    }
  }
  return v[0];
}

/// Items [begin, end) against Q queries, `lanes` items at a time, each row read from its start to its end: interleaving
/// rows would defeat the prefetcher.
template <int Q, bool affine>
void scanRows(const Block& b, Candidates& candidates, int64_t begin, int64_t end) {
  const FloatTag d;
  const int64_t dims = b.scan.args.items.cols;
  const int64_t padded = (dims + lanes - 1) / lanes * lanes;
  const int64_t whole = dims / lanes * lanes;
  const bool listed = b.scan.listed();
  HWY_ALIGN float rest[lanes] = {};
  HWY_ALIGN float scales[lanes] = {}, offsets[lanes] = {};
  for (int64_t j = begin; j < end; j += lanes) {
    const int64_t count = std::min<int64_t>(lanes, end - j);
    Floats sums[Q][lanes];
    for (int64_t r = 0; r < lanes; ++r) {
      const float* row = b.scan.args.items.row(b.scan.itemAt(j + std::min(r, count - 1)));
      if (listed) {
        const float* ahead = b.scan.args.items.row(b.scan.itemAt(std::min(j + r + 2 * lanes, end - 1)));
        for (int64_t k = 0; k < dims; k += 16) hwy::Prefetch(ahead + k);
      }
      Floats even[Q], odd[Q];
      for (int q = 0; q < Q; ++q) even[q] = odd[q] = hn::Zero(d);
      int64_t k = 0;
      for (; k + 2 * lanes <= whole; k += 2 * lanes) {
        const Floats x0 = hn::LoadU(d, row + k), x1 = hn::LoadU(d, row + k + lanes);
        for (int q = 0; q < Q; ++q) {
          even[q] = hn::MulAdd(x0, hn::Load(d, b.packed + q * padded + k), even[q]);
          odd[q] = hn::MulAdd(x1, hn::Load(d, b.packed + q * padded + k + lanes), odd[q]);
        }
      }
      if (k < whole) {
        const Floats x = hn::LoadU(d, row + k);
        for (int q = 0; q < Q; ++q) even[q] = hn::MulAdd(x, hn::Load(d, b.packed + q * padded + k), even[q]);
      }
      if (whole < dims) {
        std::memcpy(rest, row + whole, static_cast<size_t>(dims - whole) * sizeof(float));
        const Floats x = hn::Load(d, rest);
        for (int q = 0; q < Q; ++q) odd[q] = hn::MulAdd(x, hn::Load(d, b.packed + q * padded + whole), odd[q]);
      }
      for (int q = 0; q < Q; ++q) sums[q][r] = hn::Add(even[q], odd[q]);
    }
    if (affine) b.scan.itemTerms(j, count, scales, offsets);
    for (int q = 0; q < Q; ++q) {
      Floats score = sumEach(sums[q]);
      if (affine) score = hn::MulAdd(score, hn::Load(d, scales), hn::Load(d, offsets));
      if (!hn::AllTrue(d, hn::Le(score, hn::Set(d, candidates.thresholds()[q])))) {
        HWY_ALIGN float scores[lanes];
        hn::Store(score, d, scores);
        for (int64_t r = 0; r < count; ++r) {
          if (!(scores[r] <= candidates.thresholds()[q])) b.scan.offer(candidates, b.first + q, q, j + r, scores[r]);
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
  const AlignedFloats scratch(blockRows * dims), terms(2 * blockRows);
  float* scales = terms.data();
  float* offsets = scales + blockRows;

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
    if (affine) {
      scan.itemTerms(block, rows, scales, offsets);
      std::fill(scales + rows, scales + tiles * R, 0.0f);
      std::fill(offsets + rows, offsets + tiles * R, 0.0f);
    }
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
        multiplyTile<V>(panel, items + t * R * dims, dims, scores);
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
          offerSurvivors(b, candidates, p * width, block + t * R, std::min<int64_t>(R, rows - t * R), width, stored);
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
