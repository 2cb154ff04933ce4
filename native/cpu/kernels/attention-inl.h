// What the attention kernels share, for the target being compiled. Queries lie in the lanes: a panel holds `lanes` or
// two times `lanes` of them, dimension by dimension. Scores are [keys][panel], so the softmax of every query runs down
// its own lane, keys and values are broadcast from where they are, and no length or head size needs padding. All
// arithmetic is in float32: bfloat16 widens as panels and blocks are packed, and is rounded as results are written.
#include <algorithm>
#include <cstdint>
#include <limits>

#include <hwy/highway.h>

#include "backend/attention_args.h"
#include "cpu/kernels/candidates.h"
#include "cpu/kernels/philox-inl.h"
#include "cpu/kernels/tile-inl.h"

#if defined(TOPKNOT_ATTENTION_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_ATTENTION_INL_H
#undef TOPKNOT_ATTENTION_INL_H
#else
#define TOPKNOT_ATTENTION_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr float log2e = 1.44269504088896341f, ln2 = 0.693147180559945309f;
constexpr float minusInfinity = -std::numeric_limits<float>::infinity();
constexpr FloatTag floats;
constexpr hn::RebindToSigned<FloatTag> signedInts;
constexpr WordTag words;

/// Keys that a panel meets at a time: few enough for their values to stay in the first-level cache.
inline int64_t keysPerBlock(int64_t dims) { return std::clamp<int64_t>(6144 / dims, 32, 256); }

/// 2^x for x <= 0 and NaN: 0 below -126, else with a relative error below 2.5e-7.
HWY_INLINE Floats exp2(Floats x) {
  const Floats magic = hn::Set(floats, 12582912.0f);  // 1.5 * 2^23: adding it rounds x and leaves it in the low bits
  const Floats shifted = hn::Add(x, magic);
  const Floats f = hn::Sub(x, hn::Sub(shifted, magic));  // in [-1/2, 1/2]
  // The polynomial of degree 5 with constant term 1 that is nearest to 2^f in relative terms.
  Floats p = hn::Set(floats, 1.32647308e-3f);
  p = hn::MulAdd(p, f, hn::Set(floats, 9.67151299e-3f));
  p = hn::MulAdd(p, f, hn::Set(floats, 5.55073358e-2f));
  p = hn::MulAdd(p, f, hn::Set(floats, 2.40222424e-1f));
  p = hn::MulAdd(p, f, hn::Set(floats, 6.93147004e-1f));
  p = hn::MulAdd(p, f, hn::Set(floats, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(signedInts, shifted));
  const Floats scaled = hn::BitCast(floats, hn::Add(hn::BitCast(signedInts, p), exponent));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(floats, -126.0f)), scaled);
}

enum class Start { zero, given, scaled };  // what the sums of a tile start from: 0, c, or c times a factor by lane

/// c[r][V vectors] = start + Σ_k a(r, k) b[k], with a(r, k) = a[r * ar + k * ak] and b[k] at b + k * bk.
/// `maxima`, where wanted, takes in the results.
template <int V, int R, Start start, bool wantMax>
HWY_NOINLINE void tile(const float* HWY_RESTRICT a, int64_t ar, int64_t ak, const float* HWY_RESTRICT b, int64_t bk,
                       int64_t depth, float* HWY_RESTRICT c, int64_t ldc, const float* HWY_RESTRICT factors,
                       float* HWY_RESTRICT maxima) {
  Floats sums[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      sums[r][v] = start == Start::zero ? hn::Zero(floats) : hn::LoadU(floats, c + r * ldc + v * lanes);
      if (start == Start::scaled) sums[r][v] = hn::Mul(sums[r][v], hn::Load(floats, factors + v * lanes));
    }
  }
  for (int64_t k = 0; k < depth; ++k, a += ak, b += bk) {
    Floats x[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) x[v] = hn::LoadU(floats, b + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Floats s = hn::Set(floats, a[r * ar]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sums[r][v] = hn::MulAdd(s, x[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) hn::StoreU(sums[r][v], floats, c + r * ldc + v * lanes);
  }
  if (wantMax) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      Floats most = hn::Load(floats, maxima + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) most = hn::Max(most, sums[r][v]);
      hn::Store(most, floats, maxima + v * lanes);
    }
  }
}

/// The tile with `rows` rows, 1 to R.
template <int V, Start start, bool wantMax, int R = tileRows<V>(), typename... A>
HWY_INLINE void tileOf(int64_t rows, A... arguments) {
  if constexpr (R == 1) {
    tile<V, 1, start, wantMax>(arguments...);
  } else {
    if (rows == R) tile<V, R, start, wantMax>(arguments...);
    else tileOf<V, start, wantMax, R - 1>(rows, arguments...);
  }
}

/// The same for any number of rows, in tiles of nearly equal heights: none is so low that it waits for its own sums.
template <int V, Start start, bool wantMax = false>
HWY_INLINE void multiply(int64_t rows, const float* a, int64_t ar, int64_t ak, const float* b, int64_t bk,
                         int64_t depth, float* c, int64_t ldc, const float* factors = nullptr,
                         float* maxima = nullptr) {
  const int64_t tiles = (rows + tileRows<V>() - 1) / tileRows<V>();
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t height = rows / tiles + (t < rows % tiles);
    tileOf<V, start, wantMax>(height, a, ar, ak, b, bk, depth, c, ldc, factors, maxima);
    a += height * ar;
    c += height * ldc;
  }
}

/// Elements of a tensor as floats.
template <class D>
HWY_INLINE hn::Vec<D> loadElements(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> loadElements(D d, const BFloat16* from) {
  const hn::RebindToUnsigned<D> wide;
  const auto bits = hn::LoadU(hn::Rebind<uint16_t, D>(), reinterpret_cast<const uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(wide, bits)));
}

/// Floats as elements of a tensor: to nearest, ties to even. What NaN becomes is nobody's: the call fails.
template <class D>
HWY_INLINE void storeElements(hn::Vec<D> v, D d, float* to) {
  hn::StoreU(v, d, to);
}
template <class D>
HWY_INLINE void storeElements(hn::Vec<D> v, D, BFloat16* to) {
  const hn::RebindToSigned<D> ints;
  const hn::RebindToUnsigned<D> wide;
  const auto u = hn::BitCast(wide, v);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(wide, 1));
  const auto upper = hn::ShiftRight<16>(hn::Add(hn::Add(u, hn::Set(wide, 0x7fff)), odd));
  const hn::Rebind<uint16_t, D> half;
  hn::StoreU(hn::DemoteTo(half, hn::BitCast(ints, upper)), half, reinterpret_cast<uint16_t*>(to));
}

inline float widened(float x) { return x; }
inline float widened(BFloat16 x) { return toFloat(x); }
inline void narrow(float x, float& to) { to = x; }
inline void narrow(float x, BFloat16& to) { to = toBFloat16(x); }

/// Calls f(d, c) for vectors that cover the columns once.
template <typename F>
HWY_INLINE void forColumns(int64_t columns, F&& f) {
  int64_t c = 0;
  for (; c + lanes <= columns; c += lanes) f(floats, c);
  for (; c < columns; ++c) f(hn::FixedTag<float, 1>(), c);
}

/// Rows of floats, one after the other.
struct Rows {
  const float* data;
  int64_t stride;
  Rows from(int64_t i) const { return {data + i * stride, stride}; }
};

/// to[i][c] = from[i][c] * scale for c < dims, and 0 for c from there to `columns`.
template <typename T>
void copyRows(const T* from, int64_t stride, int64_t rows, int64_t dims, float scale, int64_t columns, float* to) {
  for (int64_t i = 0; i < rows; ++i, from += stride, to += columns) {
    forColumns(dims, [&](auto d, int64_t c)
                         HWY_ATTR { hn::StoreU(hn::Mul(loadElements(d, from + c), hn::Set(d, scale)), d, to + c); });
    std::fill_n(to + dims, columns - dims, 0.0f);
  }
}

/// Keys or values as floats: where they lie, or copied to `copy`.
inline Rows asFloats(const float* from, int64_t stride, int64_t, int64_t, float*) { return {from, stride}; }
inline Rows asFloats(const BFloat16* from, int64_t stride, int64_t rows, int64_t dims, float* copy) {
  copyRows(from, stride, rows, dims, 1.0f, dims, copy);
  return {copy, dims};
}

/// Four floats from each of rows first, first + 4, ... side by side.
template <class D, class Rows>
HWY_INLINE hn::Vec<D> loadBlocks(D d, const Rows& row, int64_t first) {
  if constexpr (D::kPrivateN == 4) {
    return loadElements(d, row(first));
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, loadBlocks(half, row, first + D::kPrivateN / 2), loadBlocks(half, row, first));
  }
}

template <class D, class Sink>
HWY_INLINE void storeBlocks([[maybe_unused]] D d, hn::Vec<D> v, const Sink& sink, int64_t first) {
  if constexpr (D::kPrivateN == 4) {
    sink(first, v);
  } else {
    const hn::Half<D> half;
    storeBlocks(half, hn::LowerHalf(half, v), sink, first);
    storeBlocks(half, hn::UpperHalf(half, v), sink, first + D::kPrivateN / 2);
  }
}

/// Transposes each 4 x 4 block of lanes.
HWY_INLINE void transpose4(Floats (&v)[4]) {
  const hn::Repartition<double, FloatTag> wide;
  const auto lower = [&](Floats a, Floats b) HWY_ATTR {
    return hn::BitCast(floats, hn::InterleaveLower(wide, hn::BitCast(wide, a), hn::BitCast(wide, b)));
  };
  const auto upper = [&](Floats a, Floats b) HWY_ATTR {
    return hn::BitCast(floats, hn::InterleaveUpper(wide, hn::BitCast(wide, a), hn::BitCast(wide, b)));
  };
  const Floats low01 = hn::InterleaveLower(floats, v[0], v[1]), low23 = hn::InterleaveLower(floats, v[2], v[3]);
  const Floats high01 = hn::InterleaveUpper(floats, v[0], v[1]), high23 = hn::InterleaveUpper(floats, v[2], v[3]);
  v[0] = lower(low01, low23);
  v[1] = upper(low01, low23);
  v[2] = lower(high01, high23);
  v[3] = upper(high01, high23);
}

/// columns[j][panel] = rows[i][j] * scale for j < width; lanes from `count` on repeat the last row.
template <int V, typename T>
void packColumns(const T* rows, int64_t stride, int64_t count, int64_t width, float scale, float* columns) {
  const Floats factor = hn::Set(floats, scale);
  for (int64_t v = 0; v < V; ++v) {
    const T* row[lanes];
    for (int64_t i = 0; i < lanes; ++i) row[i] = rows + std::min(v * lanes + i, count - 1) * stride;
    float* out = columns + v * lanes;
    int64_t j = 0;
    for (; j + 4 <= width; j += 4) {
      Floats four[4];
      for (int64_t r = 0; r < 4; ++r)
        four[r] = loadBlocks(
            floats, [&](int64_t i) { return row[i] + j; }, r);
      transpose4(four);
      for (int64_t r = 0; r < 4; ++r) hn::Store(hn::Mul(four[r], factor), floats, out + (j + r) * V * lanes);
    }
    for (; j < width; ++j) {
      for (int64_t i = 0; i < lanes; ++i) out[j * V * lanes + i] = widened(row[i][j]) * scale;
    }
  }
}

/// rows[i][j] = columns[j][panel] * factors[i] for i < count and j < width. Returns false if one is not finite.
template <int V, typename T>
bool unpackColumns(const float* columns, const float* factors, int64_t stride, int64_t count, int64_t width, T* rows) {
  Floats zeros = hn::Zero(floats);  // becomes NaN by what is not finite
  for (int64_t v = 0; v < V; ++v) {
    const Floats factor = hn::Load(floats, factors + v * lanes);
    const int64_t own = std::clamp<int64_t>(count - v * lanes, 0, lanes);
    T* row[lanes];
    for (int64_t i = 0; i < lanes; ++i) row[i] = rows + (v * lanes + i) * stride;
    const auto column = [&](int64_t j) HWY_ATTR {
      const Floats x = hn::Mul(hn::Load(floats, columns + (j * V + v) * lanes), factor);
      zeros = hn::MulAdd(x, hn::Zero(floats), zeros);
      return x;
    };
    int64_t j = 0;
    for (; j + 4 <= width; j += 4) {
      Floats four[4];
      for (int64_t r = 0; r < 4; ++r) four[r] = column(j + r);
      transpose4(four);
      for (int64_t r = 0; r < 4; ++r) {
        storeBlocks(
            floats, four[r],
            [&](int64_t i, hn::Vec<hn::FixedTag<float, 4>> x) HWY_ATTR {
              if (i < own) storeElements(x, hn::FixedTag<float, 4>(), row[i] + j);
            },
            r);
      }
    }
    for (; j < width; ++j) {
      HWY_ALIGN float x[lanes];
      hn::Store(column(j), floats, x);
      for (int64_t i = 0; i < own; ++i) narrow(x[i], row[i][j]);
    }
  }
  return hn::AllTrue(floats, hn::Eq(zeros, zeros));
}

/// One head of one sequence.
struct Head {
  Head(const AttentionProblem& p, int64_t b, int64_t h)
      : problem(p),
        queries(p.queryCount(b)),
        keys(p.keyCount(b)),
        shift(keys - queries),
        row(p.rowStart(b, h)),
        query(p.queryStart(b, h)),
        key(p.keyStart(b, h / (p.heads / p.kvHeads))),
        mask(p.maskOf(b)),
        bias(p.bias.of(b, h)),
        visibleEnd(keys) {
    while (mask && visibleEnd > 0 && !mask[visibleEnd - 1]) --visibleEnd;
  }

  /// The keys that query i may see, the mask aside, are [first(i), last(i)); both rise with i.
  int64_t first(int64_t i) const { return std::clamp<int64_t>(i + shift - problem.left, 0, visibleEnd); }
  int64_t last(int64_t i) const { return std::clamp<int64_t>(i + shift + problem.right + 1, 0, visibleEnd); }

  const AttentionProblem& problem;
  int64_t queries, keys, shift, row;
  int64_t query, key;  // where its first query and its first key are, in elements
  const uint8_t* mask;
  const float* bias;
  int64_t visibleEnd;  // no key from here on may be seen
};

/// Adds the bias to scores [begin, end) of the panel of `count` queries from i0 on, and makes -inf of those that a
/// query may not see. Scores count in powers of two.
template <int V>
HWY_NOINLINE void adjustScores(const Head& head, int64_t i0, int64_t count, int64_t begin, int64_t end, float* scores) {
  constexpr int64_t width = V * lanes;
  if (head.bias) {
    const Floats factor = hn::Set(floats, log2e);
    const int64_t stride = head.problem.bias.keys;
    for (int64_t v = 0; v < V; ++v) {
      const auto row = [&](int64_t i) { return head.bias + (i0 + std::min(v * lanes + i, count - 1)) * stride; };
      float* out = scores + v * lanes;
      int64_t j = begin;
      for (; j + 4 <= end; j += 4) {
        Floats four[4];
        for (int64_t r = 0; r < 4; ++r)
          four[r] = loadBlocks(
              floats, [&](int64_t i) { return row(i) + j; }, r);
        transpose4(four);
        for (int64_t r = 0; r < 4; ++r) {
          float* at = out + (j - begin + r) * width;
          hn::Store(hn::MulAdd(four[r], factor, hn::Load(floats, at)), floats, at);
        }
      }
      for (; j < end; ++j) {
        for (int64_t i = 0; i < lanes; ++i) out[(j - begin) * width + i] += row(i)[j] * log2e;
      }
    }
  }
  const bool windowed = head.first(i0 + count - 1) > begin || head.last(i0) < end;
  if (!windowed && !head.mask) return;
  const Floats hidden = hn::Set(floats, minusInfinity);
  for (int64_t j = begin; j < end; ++j, scores += width) {
    if (head.mask && !head.mask[j]) {
      for (int64_t v = 0; v < V; ++v) hn::Store(hidden, floats, scores + v * lanes);
    } else if (windowed) {
      // Query i sees key j when j - right <= i + shift <= j + left; lanes hold i - i0, which is small.
      const auto bound = [&](int64_t x) { return static_cast<int32_t>(std::clamp<int64_t>(x, -1, width)); };
      const auto least = hn::Set(signedInts, bound(j - head.problem.right - head.shift - i0));
      const auto most = hn::Set(signedInts, bound(j + head.problem.left - head.shift - i0));
      for (int64_t v = 0; v < V; ++v) {
        const auto lane = hn::Iota(signedInts, static_cast<int32_t>(v * lanes));
        const auto outside = hn::Or(hn::Lt(lane, least), hn::Gt(lane, most));
        const Floats s = hn::Load(floats, scores + v * lanes);
        hn::Store(hn::IfThenElse(hn::RebindMask(floats, outside), hidden, s), floats, scores + v * lanes);
      }
    }
  }
}

/// The scores of a panel against keys [begin, end), the rows of `keys`, in powers of two; `maxima` takes them in.
template <int V>
void scoreKeys(const Head& head, const float* panel, int64_t i0, int64_t count, Rows keys, int64_t begin, int64_t end,
               float* scores, float* maxima) {
  constexpr int64_t width = V * lanes;
  const int64_t dims = head.problem.dims;
  const auto score = [&]<bool wantMax>(int64_t from, int64_t to) HWY_ATTR {
    multiply<V, Start::zero, wantMax>(to - from, keys.from(from - begin).data, keys.stride, 1, panel, width, dims,
                                      scores + (from - begin) * width, width, nullptr, maxima);
  };
  const auto adjusted = [&](int64_t from, int64_t to) HWY_ATTR {
    float* at = scores + (from - begin) * width;
    score.template operator()<false>(from, to);
    adjustScores<V>(head, i0, count, from, to, at);
    for (int64_t v = 0; v < V; ++v) {
      Floats most = hn::Load(floats, maxima + v * lanes);
      for (int64_t j = 0; j < to - from; ++j) most = hn::Max(most, hn::Load(floats, at + j * width + v * lanes));
      hn::Store(most, floats, maxima + v * lanes);
    }
  };
  if (head.bias || head.mask) return adjusted(begin, end);
  // Between the window's edges every query of the panel sees every key: the tiles' own maxima do.
  const int64_t from = std::clamp(head.first(i0 + count - 1), begin, end), to = std::clamp(head.last(i0), from, end);
  if (begin < from) adjusted(begin, from);
  if (from < to) score.template operator()<true>(from, to);
  if (to < end) adjusted(to, end);
}

/// Multiplies weights [begin, end) of a panel by what dropout makes of them: 0 or 1 / (1 - dropout). The number of
/// query i (counted over the whole call) and key j is word j % 4 of Philox(seed, i, j / 4), its upper 24 bits.
template <int V>
HWY_NOINLINE void dropWeights(const Head& head, int64_t i0, int64_t begin, int64_t end, float* weights) {
  const float rate = head.problem.dropout;
  const auto least = hn::Set(signedInts, static_cast<int32_t>(rate * 16777216.0f));
  const Floats kept = hn::Set(floats, 1.0f / (1.0f - rate));
  for (int64_t v = 0; v < V; ++v) {
    HWY_ALIGN uint32_t low[lanes], high[lanes];
    for (int64_t i = 0; i < lanes; ++i) {
      const uint64_t row = static_cast<uint64_t>(head.row + i0 + v * lanes + i);
      low[i] = static_cast<uint32_t>(row);
      high[i] = static_cast<uint32_t>(row >> 32);
    }
    Words c[4];
    for (int64_t j = begin; j < end; ++j) {
      if (j == begin || j % 4 == 0) {
        c[0] = hn::Set(words, static_cast<uint32_t>(j / 4));
        c[1] = hn::Set(words, static_cast<uint32_t>(static_cast<uint64_t>(j / 4) >> 32));
        c[2] = hn::Load(words, low);
        c[3] = hn::Load(words, high);
        philoxLanes(head.problem.seed, c);
      }
      const auto draw = hn::BitCast(signedInts, hn::ShiftRight<8>(c[j % 4]));
      const Floats factor = hn::IfThenZeroElse(hn::RebindMask(floats, hn::Lt(draw, least)), kept);
      float* at = weights + ((j - begin) * V + v) * lanes;
      hn::Store(hn::Mul(hn::Load(floats, at), factor), floats, at);
    }
  }
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
