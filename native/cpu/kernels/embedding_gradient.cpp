// Gradients of embedding bags: by the rows that were looked up, and by the weights of the entries.
#include "cpu/kernels/embedding_chunks.h"
#include "cpu/kernels/guard.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/embedding_gradient.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/embedding_gradient-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

template <RowFormat format, class D>
HWY_INLINE float dotRow(D d, const void* row, const float* x, int64_t cols) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const hn::FixedTag<float, format == RowFormat::int4 ? 2 : 1> narrow;
  auto sum = hn::Zero(d);
  int64_t c = 0;
  for (; c + lanes <= cols; c += lanes) sum = hn::MulAdd(loadColumns<format>(d, row, c), hn::LoadU(d, x + c), sum);
  auto rest = hn::Zero(narrow);
  for (; c < cols; c += static_cast<int64_t>(hn::Lanes(narrow))) {
    rest = hn::MulAdd(loadColumns<format>(narrow, row, c), hn::LoadU(narrow, x + c), rest);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum)) + hn::GetLane(hn::SumOfLanes(narrow, rest));
}

template <RowFormat format>
void weightGradients(const Exec& exec, const EmbeddingWeightGradientArgs& a) {
  const BagsView& bags = a.bags;
  const int64_t cols = a.table.cols, bytes = a.table.rowBytes();
  const BagChunks chunks(bags, bytes);
  parallelFor(chunks.work(), chunks.grain(), exec, [&](int64_t begin, int64_t end, int) {
    const int64_t first = chunks.bagAt(begin), last = chunks.bagAt(end);
    const RowsAhead ahead(a.table, bags.ids, bags.offsets[first], bags.offsets[last]);
    const hn::ScalableTag<float> d;
    for (int64_t b = first; b < last; ++b) {
      const float* gradient = a.gradient + b * cols;
      float total = 0;
      if (quantized<format>) {
        for (int64_t c = 0; c < cols; ++c) total += gradient[c];
      }
      for (int64_t i = bags.offsets[b]; i < bags.offsets[b + 1]; ++i) {
        ahead.at(i);
        const int64_t id = bags.ids[i];
        const char* row = static_cast<const char*>(a.table.data) + id * bytes;
        float dot = id == bags.padding ? 0.0f : dotRow<format>(d, row, gradient, cols);
        if (quantized<format> && id != bags.padding) dot = a.table.scale[id] * dot + a.table.bias[id] * total;
        a.out[i] = dot;
      }
    }
  });
}

}  // namespace

Status embeddingGradient(const Exec& exec, const EmbeddingGradientArgs& a) {
  return guard([&] {
    const RowGradientsView& view = a.rows;
    const int64_t cols = view.gradient.cols;
    const BagChunks chunks(view.groups, view.gradient.rowBytes());
    parallelFor(chunks.work(), chunks.grain(), exec, [&](int64_t begin, int64_t end, int) {
      const int64_t first = chunks.bagAt(begin), last = chunks.bagAt(end);
      const RowsAhead ahead(view.gradient, view.groups.ids, view.groups.offsets[first], view.groups.offsets[last]);
      withVectors<RowFormat::float32>(cols, [&](auto d) {
        for (int64_t g = first; g < last; ++g) rowGradient(d, view, g, ahead, a.out + g * cols);
      });
    });
  });
}

Status embeddingWeightGradient(const Exec& exec, const EmbeddingWeightGradientArgs& a) {
  return guard([&] {
    switch (a.table.format) {
      case RowFormat::float32:
        return weightGradients<RowFormat::float32>(exec, a);
      case RowFormat::float16:
        return weightGradients<RowFormat::float16>(exec, a);
      case RowFormat::bfloat16:
        return weightGradients<RowFormat::bfloat16>(exec, a);
      case RowFormat::int8:
        return weightGradients<RowFormat::int8>(exec, a);
      case RowFormat::int4:
        return weightGradients<RowFormat::int4>(exec, a);
    }
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
