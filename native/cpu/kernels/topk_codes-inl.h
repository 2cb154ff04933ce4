// The scans over rows of bytes: as topk_rows-inl.h and topk_tiles-inl.h, with four bytes in each 32-bit lane. `Sum`
// says what is summed.
#if defined(TOPKNOT_TOPK_CODES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_TOPK_CODES_INL
#undef TOPKNOT_TOPK_CODES_INL
#else
#define TOPKNOT_TOPK_CODES_INL
#endif

#include <hwy/cache_control.h>

#include <memory>

#include "cpu/kernels/topk_block-inl.h"
#include "cpu/kernels/topk_codes.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

using IntTag = hn::RebindToSigned<FloatTag>;
using Ints = hn::Vec<IntTag>;

/// Products of unsigned bytes with signed ones, summed in pairs of 16 bits, then in 32: 255 * 63 * 2 fits 16 bits, so
/// |query| is at most 63; at most 31 where two such sums are added before they are widened (`steps` 2).
template <int steps_>
struct DotSum {
  static constexpr int64_t most = 0;  // steps until widen() is due; 0: never
  static constexpr int steps = steps_;
  using Single = DotSum<1>;  // the same sums, a step at a time
  template <int V>
  static constexpr int rows() {
    return steps == 1 || V == 1 ? tileRows<V>() : tileRows<V>() * 2 / 3;  // the queries of both steps are in registers
  }
  static HWY_INLINE Ints widen(Ints sum) { return sum; }

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4
  using Pairs = hn::Vec<hn::Repartition<int16_t, IntTag>>;
  static HWY_INLINE Pairs products(Ints item, Ints query) {
#if HWY_TARGET == HWY_AVX3
    return Pairs{_mm512_maddubs_epi16(item.raw, query.raw)};
#elif HWY_TARGET == HWY_AVX2
    return Pairs{_mm256_maddubs_epi16(item.raw, query.raw)};
#else
    return Pairs{_mm_maddubs_epi16(item.raw, query.raw)};
#endif
  }
  static HWY_INLINE Ints summed(Pairs pairs) {
#if HWY_TARGET == HWY_AVX3
    return Ints{_mm512_madd_epi16(pairs.raw, _mm512_set1_epi16(1))};
#elif HWY_TARGET == HWY_AVX2
    return Ints{_mm256_madd_epi16(pairs.raw, _mm256_set1_epi16(1))};
#else
    return Ints{_mm_madd_epi16(pairs.raw, _mm_set1_epi16(1))};
#endif
  }
#else
  using Pairs = Ints;
  static HWY_INLINE Ints products(Ints item, Ints query) {
    const hn::Repartition<int16_t, IntTag> wide;
    const auto x = hn::BitCast(wide, item), q = hn::BitCast(wide, query);
    const auto even = hn::Mul(hn::And(x, hn::Set(wide, 0xff)), hn::ShiftRight<8>(hn::ShiftLeft<8>(q)));
    const auto odd = hn::Mul(hn::And(hn::ShiftRight<8>(x), hn::Set(wide, 0xff)), hn::ShiftRight<8>(q));
    const auto pairs = hn::BitCast(IntTag(), hn::Add(even, odd));
    return hn::Add(hn::ShiftRight<16>(pairs), hn::ShiftRight<16>(hn::ShiftLeft<16>(pairs)));
  }
  static HWY_INLINE Ints summed(Ints pairs) { return pairs; }
#endif

  static HWY_INLINE Ints add(Ints sum, const Ints (&item)[steps], const Ints (&query)[steps]) {
    auto pairs = products(item[0], query[0]);
    if constexpr (steps == 2) pairs = hn::Add(pairs, products(item[1], query[1]));
    return hn::Add(sum, summed(pairs));
  }
};

/// Bits in which two rows differ. Counts stay in bytes, eight for a step at most, until they are widened.
struct BitSum {
  static constexpr int64_t most = 31;
  static constexpr int steps = 1;
  using Single = BitSum;
  template <int V>
  static constexpr int rows() {
    return tileRows<V>() / 2;
  }
  static HWY_INLINE Ints add(Ints sum, const Ints (&item)[1], const Ints (&query)[1]) {
    const hn::Repartition<uint8_t, IntTag> bytes;
    const auto counts = hn::PopulationCount(hn::BitCast(bytes, hn::Xor(item[0], query[0])));
    return hn::BitCast(IntTag(), hn::Add(hn::BitCast(bytes, sum), counts));
  }
  static HWY_INLINE Ints widen(Ints sum) {
    const IntTag d;
    const auto pairs =
        hn::Add(hn::And(sum, hn::Set(d, 0x00ff00ff)), hn::And(hn::ShiftRight<8>(sum), hn::Set(d, 0x00ff00ff)));
    return hn::Add(hn::And(pairs, hn::Set(d, 0xffff)), hn::ShiftRight<16>(pairs));
  }
};

HWY_INLINE int32_t fourBytes(const uint8_t* from) {
  int32_t x;
  std::memcpy(&x, from, 4);
  return x;
}

/// sums[r][v] = starts of vector v + the sum of row r and its queries; rows are `groups` times four bytes, a multiple
/// of Sum::steps.
template <class Sum, int V, int R>
HWY_INLINE void sumTile(const int32_t* HWY_RESTRICT panel, const uint8_t* HWY_RESTRICT rows, int64_t groups,
                        const int32_t* HWY_RESTRICT starts, Ints (&sums)[R][V]) {
  const IntTag d;
  const auto run = [&](int64_t from, int64_t to, Ints(&part)[R][V]) HWY_ATTR {
    for (int64_t g = from; g < to; g += Sum::steps) {
      Ints query[V][Sum::steps];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
#pragma GCC unroll 2
        for (int s = 0; s < Sum::steps; ++s) query[v][s] = hn::Load(d, panel + ((g + s) * V + v) * lanes);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        Ints item[Sum::steps];
#pragma GCC unroll 2
        for (int s = 0; s < Sum::steps; ++s) item[s] = hn::Set(d, fourBytes(rows + (r * groups + g + s) * 4));
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) part[r][v] = Sum::add(part[r][v], item, query[v]);
      }
    }
  };
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sums[r][v] = hn::LoadU(d, starts + v * lanes);
  }
  if constexpr (Sum::most == 0) {
    run(0, groups, sums);
  } else {
    for (int64_t g = 0; g < groups; g += Sum::most) {
      Ints part[R][V];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) part[r][v] = hn::Zero(d);
      }
      run(g, std::min(g + Sum::most, groups), part);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sums[r][v] = hn::Add(sums[r][v], Sum::widen(part[r][v]));
      }
    }
  }
}

/// Groups of four bytes in a row, filled up to whole steps of a tile.
template <class Sum>
constexpr int64_t codeGroups(int64_t cols) {
  return (cols + 4 * Sum::steps - 1) / (4 * Sum::steps) * Sum::steps;
}

/// Items [begin, end) against panels of V vectors of queries.
template <class Sum, CodeScore kind, int V>
void scanCodeTiles(const CodesBlock& b, Candidates& candidates, int64_t begin, int64_t end) {
  constexpr int R = Sum::template rows<V>();
  constexpr int64_t width = V * lanes, blockBytes = 24 << 10;
  const FloatTag d;
  const CodesScan& scan = b.scan;
  const int64_t groups = codeGroups<Sum>(scan.cols), stride = 4 * groups;
  const int64_t blockRows = std::max<int64_t>(1, blockBytes / (stride * R)) * R;
  const int64_t panels = (b.queries + width - 1) / width;
  const AlignedFloats scratch(blockRows * groups), terms(3 * blockRows);
  uint8_t* copied = reinterpret_cast<uint8_t*>(scratch.data());
  float *scales = terms.data(), *bounds = scales + blockRows, *norms = bounds + blockRows;

  for (int64_t block = begin; block < end; block += blockRows) {
    const int64_t rows = std::min(blockRows, end - block), tiles = (rows + R - 1) / R;
    const uint8_t* items = scan.row(block);
    if (scan.items.listed() || rows % R || stride != scan.cols) {
      std::memset(copied, 0, static_cast<size_t>(tiles * R * stride));
      for (int64_t r = 0; r < rows; ++r) std::memcpy(copied + r * stride, scan.row(block + r), scan.cols);
      items = copied;
    }
    const auto gather = [&](const float* from, float* to) {
      for (int64_t r = 0; r < tiles * R; ++r) to[r] = from && r < rows ? from[scan.items.at(block + r)] : 0.0f;
    };
    if (kind != CodeScore::negative) gather(scan.scales, scales);
    if (kind == CodeScore::bounded) gather(scan.bounds, bounds), gather(scan.norms, norms);
    const uint8_t* next = scan.row(block) + rows * scan.cols;
    const int64_t nextBytes = scan.items.listed() ? 0 : std::min(blockRows, end - block - rows) * scan.cols;
    const int64_t step = (nextBytes / 64 + panels * tiles - 1) / (panels * tiles) * 64;
    int64_t fetched = 0;

    for (int64_t p = 0; p < panels; ++p) {
      const int32_t* panel = b.packed + p * width * groups;
      const float* thresholds = candidates.thresholds() + p * width;
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t fetch = std::min(fetched + step, nextBytes);
        for (; fetched < fetch; fetched += 64) hwy::Prefetch(next + fetched);
        Ints sums[R][V];
        sumTile<Sum, V, R>(panel, items + t * R * stride, groups, b.starts + p * width, sums);
        Floats scores[R][V];
        auto dropped = hn::MaskFromVec(hn::BitCast(d, hn::Set(IntTag(), -1)));
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
          const int64_t q = p * width + v * lanes;
          const Floats threshold = hn::LoadU(d, thresholds + v * lanes);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            Floats score = hn::ConvertTo(d, sums[r][v]);
            if (kind == CodeScore::negative) score = hn::Neg(score);
            if (kind != CodeScore::negative) score = hn::Mul(score, hn::Set(d, scales[t * R + r]));
            if (kind == CodeScore::bounded) {
              score = hn::MulAdd(score, hn::LoadU(d, b.steps + q), hn::Set(d, bounds[t * R + r]));
              score = hn::NegMulAdd(hn::Set(d, norms[t * R + r]), hn::LoadU(d, b.weights + q), score);
            }
            scores[r][v] = score;
            dropped = hn::And(dropped, hn::Le(score, threshold));
          }
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

/// Adds up the lanes of each of `lanes` vectors: lane i of the result is the sum of v[i].
HWY_INLINE Ints sumEach(Ints (&v)[lanes]) {
  const IntTag d;
#pragma GCC unroll 4
  for (int64_t n = lanes / 2; n > 0; n /= 2) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < n; ++i) {
      v[i] = hn::Add(hn::ConcatEven(d, v[2 * i + 1], v[2 * i]), hn::ConcatOdd(d, v[2 * i + 1], v[2 * i]));
    }
  }
  return v[0];
}

/// Items [begin, end) against the queries of the block one after the other, `lanes` items at a time: a row is read
/// from memory by the first and from the cache by the others.
template <class Sum, CodeScore kind>
void scanCodeRows(const CodesBlock& b, Candidates& candidates, int64_t begin, int64_t end) {
  constexpr int64_t ahead = 1024, bytes = 4 * lanes;
  const FloatTag d;
  const IntTag di;
  const hn::Repartition<uint8_t, IntTag> d8;
  const CodesScan& scan = b.scan;
  const int64_t whole = scan.cols / bytes, steps = (scan.cols + bytes - 1) / bytes;
  const auto rowSum = [&](const uint8_t* row, const int32_t* query) HWY_ATTR {
    Ints sum = hn::Zero(di), part = hn::Zero(di);
    int64_t due = Sum::most;
    const auto step = [&](Ints bytes, int64_t s) HWY_ATTR {
      const Ints item[1] = {bytes}, other[1] = {hn::Load(di, query + s * lanes)};
      part = Sum::add(part, item, other);
      if (Sum::most && --due == 0) sum = hn::Add(sum, Sum::widen(part)), part = hn::Zero(di), due = Sum::most;
    };
    for (int64_t s = 0; s < whole; ++s) step(hn::BitCast(di, hn::LoadU(d8, row + s * bytes)), s);
    if (whole < steps) {
      HWY_ALIGN uint8_t rest[bytes] = {};
      std::memcpy(rest, row + whole * bytes, static_cast<size_t>(scan.cols - whole * bytes));
      step(hn::BitCast(di, hn::Load(d8, rest)), whole);
    }
    return hn::Add(sum, Sum::widen(part));
  };
  for (int64_t j = begin; j < end; j += lanes) {
    const int64_t count = std::min<int64_t>(lanes, end - j);
    HWY_ALIGN float scales[lanes] = {}, bounds[lanes] = {}, norms[lanes] = {};
    for (int64_t r = 0; r < count; ++r) {
      const int64_t item = scan.items.at(j + r);
      if (kind != CodeScore::negative) scales[r] = scan.scales[item];
      if (kind == CodeScore::bounded) {
        bounds[r] = scan.bounds ? scan.bounds[item] : 0.0f;
        norms[r] = scan.norms ? scan.norms[item] : 0.0f;
      }
      for (int64_t c = 0; c < scan.cols; c += 64) hwy::Prefetch(scan.codes + item * scan.cols + ahead + c);
    }
    for (int64_t q = 0; q < b.queries; ++q) {
      Ints sums[lanes];
      for (int64_t r = 0; r < lanes; ++r) {
        sums[r] = r < count ? rowSum(scan.row(j + r), b.packed + q * steps * lanes) : hn::Zero(di);
      }
      Floats score = hn::ConvertTo(d, hn::Add(sumEach(sums), hn::Set(di, b.starts[q])));
      if (kind == CodeScore::negative) score = hn::Neg(score);
      if (kind != CodeScore::negative) score = hn::Mul(score, hn::Load(d, scales));
      if (kind == CodeScore::bounded) {
        score = hn::MulAdd(score, hn::Set(d, b.steps[q]), hn::Load(d, bounds));
        score = hn::NegMulAdd(hn::Load(d, norms), hn::Set(d, b.weights[q]), score);
      }
      if (hn::AllTrue(d, hn::Le(score, hn::Set(d, candidates.thresholds()[q])))) continue;
      HWY_ALIGN float scores[lanes];
      hn::Store(score, d, scores);
      for (int64_t r = 0; r < count; ++r) {
        if (!(scores[r] <= candidates.thresholds()[q])) scan.offer(candidates, b.first + q, q, j + r, scores[r]);
      }
    }
  }
}

/// How many queries are scanned row by row at most, and how many threads' candidates may take.
constexpr int64_t codeRowQueries = 3, codeKeptBytes = 256 << 20, codePackedBytes = 128 << 10, codeChunkWork = 1 << 25;

/// Scans everything for queries [first, first + queries) of a call with `all`. `bytesOf(q)` are the bytes of a query;
/// `block` has the terms of the queries, padded to whole panels of 2 * lanes.
template <class Sum, CodeScore kind, class BytesOf>
CandidatesBySlot scanCodes(const Exec& exec, CodesBlock block, int64_t all, int64_t k, const double* shifts,
                           BytesOf&& bytesOf) {
  const CodesScan& scan = block.scan;
  const bool byRows = all <= codeRowQueries;
  const int vectors = all <= lanes ? 1 : 2;
  const int64_t width = byRows ? 1 : vectors * lanes;
  const int64_t padded = (block.queries + width - 1) / width * width;
  const int64_t groups = codeGroups<Sum>(scan.cols), rowGroups = (groups + lanes - 1) / lanes * lanes;
  const AlignedFloats memory(padded * rowGroups);
  int32_t* packed = reinterpret_cast<int32_t*>(memory.data());
  std::fill_n(packed, padded * rowGroups, 0);
  for (int64_t q = 0; q < block.queries; ++q) {
    const uint8_t* bytes = bytesOf(block.first + q);
    for (int64_t g = 0; 4 * g < scan.cols; ++g) {
      const int64_t at = byRows ? q * rowGroups + g : (q / width * groups + g) * width + q % width;
      std::memcpy(packed + at, bytes + 4 * g, static_cast<size_t>(std::min<int64_t>(4, scan.cols - 4 * g)));
    }
  }
  block.packed = packed;

  const int64_t rows = byRows ? (256 << 10) / scan.cols : codeChunkWork / (padded * scan.cols);
  const int64_t whole = 4 * std::max<int64_t>(lanes, tileRows<1>());
  const int64_t grain = std::max<int64_t>(1, rows / whole) * whole;
  CandidatesBySlot kept(maxThreads);
  const auto part = [&](int64_t begin, int64_t end, int slot) {
    if (!kept[slot]) {
      kept[slot] = std::make_unique<Candidates>(block.queries, padded, k, scan.items.count, shifts);
    }
    if (byRows) {
      scanCodeRows<typename Sum::Single, kind>(block, *kept[slot], begin, end);
    } else if (vectors == 1) {
      scanCodeTiles<Sum, kind, 1>(block, *kept[slot], begin, end);
    } else {
      scanCodeTiles<Sum, kind, 2>(block, *kept[slot], begin, end);
    }
  };
  if (byRows) parallelFor(scan.items.count, grain, exec, part);
  else scanInPhases(exec, scan.items.count, grain, whole, k, block.queries, kept, part);
  return kept;
}

/// How many queries a block may have.
inline int64_t codeBlockQueries(int64_t k, int64_t rows, int64_t cols) {
  const int64_t perQuery = Candidates::capacity(k, rows) * static_cast<int64_t>(sizeof(Key)) * threadCount();
  const int64_t most = std::min(codeKeptBytes / perQuery, codePackedBytes / std::max<int64_t>(cols, 1));
  return most < 32 ? std::max<int64_t>(most, 1) : most / 32 * 32;
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
