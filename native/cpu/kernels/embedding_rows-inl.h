// Rows of embedding tables as vectors of floats, and the sums and maxima of many of them: what the forward and the
// backward pass of an embedding have in common. A block of columns stays in registers while the entries of a bag pass
// by; every column is computed on its own, so the last block may overlap the one before it.
#if defined(TOPKNOT_EMBEDDING_ROWS) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_EMBEDDING_ROWS
#undef TOPKNOT_EMBEDDING_ROWS
#else
#define TOPKNOT_EMBEDDING_ROWS
#endif

#include <hwy/highway.h>

#include <algorithm>

#include "backend/embedding_args.h"
#include "cpu/kernels/load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

template <RowFormat format>
inline constexpr bool quantized = format == RowFormat::int8 || format == RowFormat::int4;

/// Lanes(d) columns of a row from column c, which is even for int4.
template <RowFormat format, class D>
HWY_INLINE hn::Vec<D> loadColumns(D d, const void* row, int64_t c) {
  if constexpr (format == RowFormat::float32) {
    return loadFloats(d, static_cast<const float*>(row) + c);
  } else if constexpr (format == RowFormat::bfloat16) {
    return loadFloats(d, static_cast<const BFloat16*>(row) + c);
  } else if constexpr (format == RowFormat::float16) {
    return loadFloats(d, static_cast<const Float16*>(row) + c);
  } else if constexpr (format == RowFormat::int8) {
    const hn::RebindToSigned<D> di;
    const hn::Rebind<int8_t, D> bytes;
    return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(bytes, static_cast<const int8_t*>(row) + c)));
  } else {
    const hn::RebindToSigned<D> di;
    const hn::Rebind<uint8_t, D> nibbles;
    const hn::Repartition<uint16_t, decltype(nibbles)> pairs;
    const hn::Rebind<uint8_t, decltype(pairs)> bytes;
    const auto both = hn::PromoteTo(pairs, hn::LoadU(bytes, static_cast<const uint8_t*>(row) + c / 2));
    const auto apart = hn::Or(hn::And(both, hn::Set(pairs, 0x0f)), hn::ShiftLeft<8>(hn::ShiftRight<4>(both)));
    return hn::ConvertTo(d, hn::PromoteTo(di, hn::BitCast(nibbles, apart)));
  }
}

/// Calls f(d) with the widest vectors that are no wider than a row.
template <RowFormat format, typename F>
HWY_INLINE void withVectors(int64_t cols, F&& f) {
  const hn::ScalableTag<float> wide;
  if (cols >= static_cast<int64_t>(hn::Lanes(wide))) return f(wide);
  if (cols >= 4) return f(hn::FixedTag<float, 4>());
  f(hn::FixedTag < float, format == RowFormat::int4 ? 2 : 1 > ());
}

template <int K>
struct Size {
  static constexpr int value = K;
};

/// Covers [0, cols) by calls f(c, Size<K>()) for the columns [c, c + K * lanes), K at most `most`.
template <int most, class D, typename F>
HWY_INLINE void forColumnBlocks(D d, int64_t cols, F&& f) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t c = 0;
  for (; c + most * lanes <= cols; c += most * lanes) f(c, Size<most>());
  if constexpr (most > 4) {
    if (c + 4 * lanes <= cols) f(c, Size<4>()), c += 4 * lanes;
  }
  if (c + 2 * lanes <= cols) f(c, Size<2>()), c += 2 * lanes;
  if (c + lanes <= cols) f(c, Size<1>()), c += lanes;
  if (c < cols) f(cols - lanes, Size<1>());
}

/// Prefetches the rows that come next, a bounded number of bytes ahead of their use.
class RowsAhead {
 public:
  /// Entries [begin, end) will be used in order.
  RowsAhead(const TableView& table, const int32_t* ids, int64_t begin, int64_t end)
      : data_(reinterpret_cast<uintptr_t>(table.data)), bytes_(table.rowBytes()), ids_(ids), end_(end) {
    distance_ = std::clamp<int64_t>(aheadBytes / bytes_, 2, 32);
    for (int64_t i = begin; i < end && i < begin + distance_; ++i) fetch(i);
  }
  /// Entry i is being used.
  HWY_INLINE void at(int64_t i) const {
    if (i + distance_ < end_) fetch(i + distance_);
  }

 private:
  static constexpr int64_t aheadBytes = 4096, line = 64;
  HWY_INLINE void fetch(int64_t i) const {
    const uintptr_t row = data_ + static_cast<uintptr_t>(ids_[i] * bytes_);
    for (uintptr_t at = row & ~uintptr_t{line - 1}; at < row + static_cast<uintptr_t>(bytes_); at += line) {
      __builtin_prefetch(reinterpret_cast<const void*>(at), 0, 3);
    }
  }
  uintptr_t data_;
  int64_t bytes_;
  const int32_t* ids_;
  int64_t end_, distance_;
};

/// out = Σ w_i row_i / divisor over the entries [begin, end) that are not padding.
template <RowFormat format, class D>
HWY_INLINE void sumRows(D d, const TableView& table, const BagsView& bags, int64_t begin, int64_t end, float divisor,
                        const RowsAhead& ahead, float* out) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), bytes = table.rowBytes();
  forColumnBlocks<8>(d, table.cols, [&](int64_t c, auto size) HWY_ATTR {
    constexpr int K = decltype(size)::value;
    hn::Vec<D> sum[K];
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) sum[k] = hn::Zero(d);
    float bias = 0;
    for (int64_t i = begin; i < end; ++i) {
      if (c == 0) ahead.at(i);
      const int64_t id = bags.ids[i];
      if (id == bags.padding) continue;
      float weight = bags.weights ? bags.weights[i] : 1.0f;
      if constexpr (quantized<format>) {
        bias += weight * table.bias[id];
        weight *= table.scale[id];
      }
      const auto w = hn::Set(d, weight);
      const char* row = static_cast<const char*>(table.data) + id * bytes;
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k) sum[k] = hn::MulAdd(w, loadColumns<format>(d, row, c + k * lanes), sum[k]);
    }
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
      auto value = sum[k];
      if constexpr (quantized<format>) value = hn::Add(value, hn::Set(d, bias));
      if (divisor != 1.0f) value = hn::Div(value, hn::Set(d, divisor));
      hn::StoreU(value, d, out + c + k * lanes);
    }
  });
}

/// out = the maximum of the rows of the entries [begin, end) that are not padding, the first of which is `begin`;
/// equal values: the earlier entry wins. A NaN wins over numbers.
template <RowFormat format, class D>
HWY_INLINE void maxRows(D d, const TableView& table, const BagsView& bags, int64_t begin, int64_t end,
                        const RowsAhead& ahead, float* out, int32_t* winners) {
  const hn::RebindToSigned<D> di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), bytes = table.rowBytes();
  forColumnBlocks<4>(d, table.cols, [&](int64_t c, auto size) HWY_ATTR {
    constexpr int K = decltype(size)::value;
    const auto load = [&](int64_t i, int k) HWY_ATTR {
      const int64_t id = bags.ids[i];
      const auto x = loadColumns<format>(d, static_cast<const char*>(table.data) + id * bytes, c + k * lanes);
      if constexpr (!quantized<format>) return x;
      else return hn::MulAdd(x, hn::Set(d, table.scale[id]), hn::Set(d, table.bias[id]));
    };
    hn::Vec<D> best[K];
    hn::Vec<decltype(di)> winner[K];
    if (c == 0) ahead.at(begin);
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
      best[k] = load(begin, k);
      winner[k] = hn::Set(di, static_cast<int32_t>(begin));
    }
    for (int64_t i = begin + 1; i < end; ++i) {
      if (c == 0) ahead.at(i);
      if (bags.ids[i] == bags.padding) continue;
      const auto self = hn::Set(di, static_cast<int32_t>(i));
#pragma GCC unroll 4
      for (int k = 0; k < K; ++k) {
        const auto x = load(i, k);
        const auto better = hn::Or(hn::Gt(x, best[k]), hn::IsNaN(x));
        best[k] = hn::IfThenElse(better, x, best[k]);
        winner[k] = hn::IfThenElse(hn::RebindMask(di, better), self, winner[k]);
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
      hn::StoreU(best[k], d, out + c + k * lanes);
      if (winners) hn::StoreU(winner[k], di, winners + c + k * lanes);
    }
  });
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
