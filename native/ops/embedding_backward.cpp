// The backward pass of embedding lookups. No gradient of the size of the table is ever made: entries are sorted by row,
// and each row that was looked up gets the sum over its entries.
#include <cmath>

#include "backend/registry.h"
#include "ops/embedding_gradients.h"
#include "ops/ops.h"

namespace topknot {
namespace {

constexpr int64_t grain = 1 << 14;

Tensor shaped(const Tensor& t, Shape shape) {
  Tensor out = t;
  out.shape = shape;
  return out;
}

/// For max: the entry that each maximum came from.
Tensor winnersOf(const Exec& exec, const TableView& table, const BagsView& bags) {
  const Tensor maxima = Tensor::host<float>({bags.bags, table.cols});
  const Tensor winners = Tensor::host<int32_t>({bags.bags, table.cols});
  run(cpuBackend(), &Backend::embeddingBag, "embeddingBag", exec,
      EmbeddingBagArgs{table, bags, BagMode::max, maxima.data<float>(), winners.data<int32_t>()});
  return winners;
}

}  // namespace

EmbeddingGradients::EmbeddingGradients(const Exec& exec, Tensor gradient, const EmbeddingRows& table, Tensor ids,
                                       std::optional<Tensor> offsets, const BagOptions& options)
    : gradient_(std::move(gradient)) {
  table_ = checkedTable(table);
  Bags bags(std::move(ids), std::move(offsets), options, table_.rows);
  require(table.data.device().kind == Device::cpu && gradient_.device().kind == Device::cpu, ErrorCode::device,
          "table: the backward pass of embeddings is available on device 'cpu' alone");
  expect(gradient_, "gradient", DType::float32, 2);
  require(gradient_.rows() == bags.count() && gradient_.cols() == table_.cols, ErrorCode::shape,
          "gradient: expected shape [", bags.count(), ", ", table_.cols, "] (bags, columns of the table) but received ",
          text(gradient_.shape));
  bags_ = std::move(bags);
  table_ = readyTable(table);
  const BagsView view = bags_->ready(exec, Device{});
  const int64_t entries = view.offsets[view.bags];
  parallelFor(gradient_.rows(), std::max<int64_t>(1, grain / table_.cols), exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin * table_.cols; i < end * table_.cols; ++i) {
      require(std::isfinite(gradient_.data<float>()[i]), ErrorCode::value, "gradient: expected finite numbers but row ",
              i / table_.cols, " holds ", gradient_.data<float>()[i]);
    }
  });

  const Tensor order = Tensor::host<int32_t>({entries}), rows = Tensor::host<int32_t>({entries});
  const Tensor starts = Tensor::host<int64_t>({entries + 1});
  run(cpuBackend(), &Backend::embeddingGroup, "embeddingGroup", exec,
      EmbeddingGroupArgs{view.ids, entries, table_.rows, view.padding, order.data<int32_t>(), rows.data<int32_t>(),
                         starts.data<int64_t>(), &groups_});
  order_ = order;
  rows_ = shaped(rows, {groups_});
  starts_ = starts;
  if (options.mode == BagMode::max) winners_ = winnersOf(exec, table_, view);
  placeEntries(exec, view, options.mode);
}

/// The bag and the weight of every entry, in the order of the groups.
void EmbeddingGradients::placeEntries(const Exec& exec, const BagsView& view, BagMode mode) {
  const int64_t entries = view.offsets[view.bags], kept = starts_.data<int64_t>()[groups_];
  const Tensor bagOf = Tensor::host<int32_t>({entries});
  const bool weighted = view.weights || mode == BagMode::mean;
  Tensor weightOf;
  if (mode == BagMode::mean) weightOf = Tensor::host<float>({entries});
  parallelFor(view.bags, 256, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t b = begin; b < end; ++b) {
      int64_t count = 0;
      for (int64_t i = view.offsets[b]; i < view.offsets[b + 1]; ++i) {
        bagOf.data<int32_t>()[i] = static_cast<int32_t>(b);
        count += view.ids[i] != view.padding;
      }
      if (mode != BagMode::mean) continue;
      for (int64_t i = view.offsets[b]; i < view.offsets[b + 1]; ++i) {
        weightOf.data<float>()[i] = 1.0f / static_cast<float>(count);
      }
    }
  });
  const float* weights = mode == BagMode::mean ? weightOf.data<float>() : view.weights;
  bagOf_ = Tensor::host<int32_t>({kept});
  if (weighted) weightOf_ = Tensor::host<float>({kept});
  parallelFor(kept, grain, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t entry = order_.data<int32_t>()[i];
      bagOf_.data<int32_t>()[i] = bagOf.data<int32_t>()[entry];
      if (weighted) weightOf_->data<float>()[i] = weights[entry];
    }
  });
}

RowGradientsView EmbeddingGradients::view() const {
  const TableView gradient{gradient_.data<float>(), gradient_.rows(), gradient_.cols(), RowFormat::float32};
  const BagsView groups{bagOf_.data<int32_t>(), starts_.data<int64_t>(), groups_,
                        weightOf_ ? weightOf_->data<float>() : nullptr, -1};
  return {gradient,
          bagOf_.count(),
          groups,
          rows_.data<int32_t>(),
          order_.data<int32_t>(),
          winners_ ? winners_->data<int32_t>() : nullptr};
}

Tensor EmbeddingGradients::weightGradient(const Exec& exec) {
  const BagsView view = bags_->ready(exec, Device{});
  Tensor out = Tensor::host<float>({view.offsets[view.bags]});
  run(cpuBackend(), &Backend::embeddingWeightGradient, "embeddingWeightGradient", exec,
      EmbeddingWeightGradientArgs{table_, view, gradient_.data<float>(), out.data<float>()});
  return out;
}

namespace ops {

RowGradients embeddingBagBackward(Job& job, Tensor gradient, EmbeddingRows table, Tensor ids,
                                  std::optional<Tensor> offsets, BagOptions options, bool ofWeights) {
  require(!ofWeights || options.mode == BagMode::sum, ErrorCode::argument,
          "weightGradient: expected with mode 'sum' alone");
  EmbeddingGradients gradients(job.exec(), std::move(gradient), table, std::move(ids), std::move(offsets), options);
  job.checkCancelled();
  const RowGradientsView view = gradients.view();
  RowGradients out{gradients.rows(), Tensor::host<float>({view.groups.bags, view.gradient.cols}), std::nullopt};
  run(cpuBackend(), &Backend::embeddingGradient, "embeddingGradient", job.exec(),
      EmbeddingGradientArgs{view, out.values.data<float>()});
  if (ofWeights) out.weights = gradients.weightGradient(job.exec());
  job.checkCancelled();
  return out;
}

QuantizedRows embeddingQuantize(Job& job, Tensor table, int64_t bits) {
  expect(table, "table", DType::float32, 2);
  require(bits == 8 || bits == 4, ErrorCode::range, "bits: expected 8 or 4 but received ", bits);
  const int64_t rows = table.rows(), cols = table.cols();
  require(cols >= 1 && (bits == 8 || cols % 2 == 0), ErrorCode::shape, "table: expected ",
          bits == 8 ? "at least one column" : "an even number of columns, for 4 bits,", " but received shape ",
          text(table.shape));
  QuantizedRows out{bits == 8 ? Tensor::host<int8_t>({rows, cols}) : Tensor::host<uint8_t>({rows, cols / 2}),
                    Tensor::host<float>({rows}), Tensor::host<float>({rows})};
  run(table.device(), &Backend::embeddingQuantize, "embeddingQuantize", job.exec(),
      EmbeddingQuantizeArgs{table.data<float>(), rows, cols, bits == 8 ? RowFormat::int8 : RowFormat::int4,
                            out.data.buffer->data(), out.scale.data<float>(), out.bias.data<float>()});
  job.checkCancelled();
  return out;
}

}  // namespace ops
}  // namespace topknot
