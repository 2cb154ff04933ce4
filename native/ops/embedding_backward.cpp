// The backward pass of embedding lookups. No gradient of the size of the table is ever made: entries are sorted by row,
// and each row that was looked up gets the sum over its entries.
#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/embedding_gradients.h"
#include "ops/embedding_used.h"
#include "ops/ops.h"
#include "ops/queued.h"
#include "ops/topk_checks.h"

namespace topknot {
namespace {

Tensor shaped(const Tensor& t, Shape shape) {
  Tensor out = t;
  out.shape = shape;
  return out;
}

/// For max: the entry that each maximum came from.
Tensor winnersOf(const Exec& exec, Device device, const TableView& table, const BagsView& bags) {
  const Tensor maxima = empty<float>(device, {bags.bags, table.cols});
  const Tensor winners = empty<int32_t>(device, {bags.bags, table.cols});
  run(device, &Backend::embeddingBag, "embeddingBag", exec,
      EmbeddingBagArgs{table, bags, BagMode::max, maxima.data<float>(), winners.data<int32_t>()});
  return winners;
}

}  // namespace

EmbeddingGradients::EmbeddingGradients(const Exec& exec, Tensor gradient, const EmbeddingRows& table, Tensor ids,
                                       std::optional<Tensor> offsets, const BagOptions& options, Device device)
    : table_(table), device_(device), gradient_(std::move(gradient)) {
  const TableView whole = checkedTable(table);
  Bags bags(std::move(ids), std::move(offsets), options, whole.rows);
  expect(gradient_, "gradient", DType::float32, 2);
  require(gradient_.device() == device, ErrorCode::device, "gradient: expected to be on device '", text(device),
          "', as table is, but is on '", text(gradient_.device()), "'");
  require(gradient_.rows() == bags.count() && gradient_.cols() == whole.cols, ErrorCode::shape,
          "gradient: expected shape [", bags.count(), ", ", whole.cols, "] (bags, columns of the table) but received ",
          text(gradient_.shape));
  bags_ = std::move(bags);
  const BagsView view = bags_->ready(exec, table, device_);
  const TableView& used = bags_->used().table();
  expectFinite(gradient_, "gradient", exec);

  const int64_t entries = bags_->entries();
  const Tensor rows = empty<int32_t>(device_, {entries}), groups = empty<int64_t>(device_, {1});
  order_ = empty<int32_t>(device_, {entries});
  starts_ = empty<int64_t>(device_, {entries + 1});
  run(device_, &Backend::embeddingGroup, "embeddingGroup", exec,
      EmbeddingGroupArgs{view.ids, entries, used.rows, view.padding, order_.data<int32_t>(), rows.data<int32_t>(),
                         starts_.data<int64_t>(), groups.data<int64_t>()});
  require(!exec.cancelled(), ErrorCode::aborted, "the operation was aborted");  // then groups says nothing
  groups_ = numberAt<int64_t>(groups, 0);
  rows_ = shaped(rows, {groups_});
  if (options.mode == BagMode::max) winners_ = winnersOf(exec, device_, used, view);
  placeEntries(exec, view, options.mode);
}

/// The bag and the weight of every entry, in the order of the groups.
void EmbeddingGradients::placeEntries(const Exec& exec, const BagsView& view, BagMode mode) {
  const int64_t kept = numberAt<int64_t>(starts_, groups_);
  bagOf_ = empty<int32_t>(device_, {kept});
  if (view.weights || mode == BagMode::mean) weightOf_ = empty<float>(device_, {kept});
  run(device_, &Backend::embeddingPlace, "embeddingPlace", exec,
      EmbeddingPlaceArgs{.bags = view,
                         .order = order_.data<int32_t>(),
                         .count = kept,
                         .mean = mode == BagMode::mean,
                         .bagOf = bagOf_.data<int32_t>(),
                         .weightOf = weightOf_ ? weightOf_->data<float>() : nullptr});
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
  const BagsView view = bags_->ready(exec, table_, device_);
  Tensor out = empty<float>(device_, {bags_->entries()});
  run(device_, &Backend::embeddingWeightGradient, "embeddingWeightGradient", exec,
      EmbeddingWeightGradientArgs{bags_->used().table(), view, gradient_.data<float>(), out.data<float>()});
  return out;
}

namespace ops {

RowGradients embeddingBagBackward(Job& job, Tensor gradient, EmbeddingRows table, Tensor ids,
                                  std::optional<Tensor> offsets, BagOptions options, bool ofWeights) {
  require(!ofWeights || options.mode == BagMode::sum, ErrorCode::argument,
          "weightGradient: expected with mode 'sum' alone");
  const Device device = table.data.device();
  EmbeddingGradients gradients(job.exec(), std::move(gradient), table, std::move(ids), std::move(offsets), options,
                               device);
  job.checkCancelled();
  const RowGradientsView view = gradients.view();
  RowGradients out{gradients.rows(), empty<float>(device, {view.groups.bags, view.gradient.cols}), std::nullopt};
  run(device, &Backend::embeddingGradient, "embeddingGradient", job.exec(),
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
  const Device device = table.device();
  QuantizedRows out{bits == 8 ? empty<int8_t>(device, {rows, cols}) : empty<uint8_t>(device, {rows, cols / 2}),
                    empty<float>(device, {rows}), empty<float>(device, {rows})};
  run(table.device(), &Backend::embeddingQuantize, "embeddingQuantize", job.exec(),
      EmbeddingQuantizeArgs{table.data<float>(), rows, cols, bits == 8 ? RowFormat::int8 : RowFormat::int4,
                            out.data.buffer->data(), out.scale.data<float>(), out.bias.data<float>()});
  job.checkCancelled();
  return out;
}

}  // namespace ops
}  // namespace topknot
