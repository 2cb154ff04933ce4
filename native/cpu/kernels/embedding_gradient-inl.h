// The gradient of one row of a table: a sum over the bags that looked it up.
#if defined(TOPKNOT_EMBEDDING_GRADIENT) == defined(HWY_TARGET_TOGGLE)
#ifdef TOPKNOT_EMBEDDING_GRADIENT
#undef TOPKNOT_EMBEDDING_GRADIENT
#else
#define TOPKNOT_EMBEDDING_GRADIENT
#endif

#include "cpu/kernels/embedding_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

/// out = Σ gradient of the bag of each entry in [begin, end), in the columns that the entry won.
template <class D>
HWY_INLINE void sumWonColumns(D d, const RowGradientsView& view, int64_t begin, int64_t end, const RowsAhead& ahead,
                              float* out) {
  const hn::RebindToSigned<D> di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), cols = view.gradient.cols;
  forColumnBlocks<4>(d, cols, [&](int64_t c, auto size) HWY_ATTR {
    constexpr int K = decltype(size)::value;
    hn::Vec<D> sum[K];
    for (int k = 0; k < K; ++k) sum[k] = hn::Zero(d);
    for (int64_t i = begin; i < end; ++i) {
      if (c == 0) ahead.at(i);
      const int64_t at = view.groups.ids[i] * cols + c;
      const auto self = hn::Set(di, view.order[i]);
      const float* gradient = static_cast<const float*>(view.gradient.data) + at;
#pragma GCC unroll 4
      for (int k = 0; k < K; ++k) {
        const auto won = hn::RebindMask(d, hn::Eq(hn::LoadU(di, view.winners + at + k * lanes), self));
        sum[k] = hn::Add(sum[k], hn::IfThenElseZero(won, hn::LoadU(d, gradient + k * lanes)));
      }
    }
    for (int k = 0; k < K; ++k) hn::StoreU(sum[k], d, out + c + k * lanes);
  });
}

/// out = the gradient of the row of group g.
template <class D>
HWY_INLINE void rowGradient(D d, const RowGradientsView& view, int64_t g, const RowsAhead& ahead, float* out) {
  const int64_t begin = view.groups.offsets[g], end = view.groups.offsets[g + 1];
  if (view.winners) return sumWonColumns(d, view, begin, end, ahead, out);
  sumRows<RowFormat::float32>(d, view.gradient, view.groups, begin, end, 1.0f, ahead, out);
}

}  // namespace
}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
