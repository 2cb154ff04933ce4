// The memory of a trainable embedding table. These are the only operations that change a tensor: EmbeddingTable in
// lib/nn/embedding-table.ts keeps the tensors to itself and lets an update run only while nothing reads them.
#include <cmath>
#include <cstring>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/embedding_gradients.h"
#include "ops/embedding_used.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

void expectState(const std::vector<Tensor>& state, EmbeddingOptimizer optimizer, const Tensor& table) {
  const bool adam = optimizer == EmbeddingOptimizer::adam;
  const size_t count = adam ? 2 : optimizer == EmbeddingOptimizer::adagrad ? 1 : 0;
  require(state.size() == count, ErrorCode::argument, "state: expected ", count, " tensors but received ",
          state.size());
  for (const Tensor& t : state) {
    expect(t, "state", DType::float32, adam ? 2 : 1);
    expectSameDevice(t, "state", table, "table");
    require(t.rows() == table.rows() && (!adam || t.cols() == table.cols()), ErrorCode::shape, "state: expected one ",
            adam ? "row" : "number", " for each row of the table but received shape ", text(t.shape));
  }
}

void expectPositive(double value, const char* name) {
  require(std::isfinite(value) && value > 0, ErrorCode::range, name, ": expected a number above 0 but received ",
          value);
}

}  // namespace

namespace ops {

Tensor embeddingTableCopy(Job& job, Tensor tensor) {
  expect(tensor, "table", tensor.dtype, -1);
  Tensor out = empty(tensor.device(), tensor.dtype, tensor.shape);
  if (tensor.device().kind != Device::cpu) {
    copyInto(tensor, out);
    return out;
  }
  const int64_t bytes = static_cast<int64_t>(tensor.bytes());
  parallelFor(bytes, 1 << 20, job.exec(), [&](int64_t begin, int64_t end, int) {
    std::memcpy(out.data<char>() + begin, tensor.data<char>() + begin, static_cast<size_t>(end - begin));
  });
  job.checkCancelled();
  return out;
}

void embeddingTableUpdate(Job& job, Tensor table, std::vector<Tensor> state, Tensor gradient, Tensor ids,
                          std::optional<Tensor> offsets, BagOptions options, EmbeddingUpdateOptions update,
                          std::optional<std::string> device) {
  const EmbeddingRows whole{table, {}, {}};
  const Device where = computingDevice(whole, device);
  expectState(state, update.optimizer, table);
  expectPositive(update.learningRate, "learningRate");
  expectPositive(update.epsilon, "epsilon");
  for (const auto& [beta, name] : {std::pair{update.beta1, "beta1"}, std::pair{update.beta2, "beta2"}}) {
    require(beta >= 0 && beta < 1, ErrorCode::range, name, ": expected 0 or more and below 1 but received ", beta);
  }
  require(update.step >= 1, ErrorCode::range, "step: expected 1 or more but received ", update.step);
  Exec exec = job.exec();
  exec.cancel = nullptr;  // a step is taken whole
  EmbeddingGradients gradients(exec, std::move(gradient), whole, std::move(ids), std::move(offsets), options, where);
  // Of a table in host memory the rows that were looked up, and theirs of the state, are on the device by now or go
  // there, and come back when all of them have been updated.
  const UsedRows& used = gradients.used();
  std::vector<Tensor> placed = state;
  std::optional<Tensor> keys;
  if (const Tensor* rows = used.rows()) {
    for (Tensor& t : placed) t = copyTo(rowsTaken(exec, t, *rows), where);
    keys = copyTo(*rows, where);
  }
  const bool adam = update.optimizer == EmbeddingOptimizer::adam;
  const double t = static_cast<double>(update.step);
  const EmbeddingUpdateArgs args{
      .rows = gradients.view(),
      .optimizer = update.optimizer,
      .rate = static_cast<float>(update.learningRate),
      .epsilon = static_cast<float>(update.epsilon),
      .beta1 = static_cast<float>(update.beta1),
      .beta2 = static_cast<float>(update.beta2),
      .correction1 = static_cast<float>(1 - std::pow(update.beta1, t)),
      .correction2 = static_cast<float>(1 - std::pow(update.beta2, t)),
      .table = const_cast<void*>(used.table().data),
      .format = used.table().format,
      .sums = update.optimizer == EmbeddingOptimizer::adagrad ? placed[0].data<float>() : nullptr,
      .means = adam ? placed[0].data<float>() : nullptr,
      .squares = adam ? placed[1].data<float>() : nullptr,
      .seed = static_cast<uint64_t>(update.seed),
      .step = static_cast<uint64_t>(update.step),
      .keys = keys ? keys->data<int32_t>() : nullptr};
  run(where, &Backend::embeddingUpdate, "embeddingUpdate", exec, args);
  if (!used.rows()) return;
  std::vector<Tensor> updated;  // all of it, before the first row changes
  const Tensor x = Tensor::host(table.dtype, {used.rows()->count(), table.cols()});
  fetchBytes(where, x.buffer->data(), used.table().data, x.bytes());
  for (const Tensor& t : placed) updated.push_back(copyTo(t, Device{}));
  putRows(exec, x, *used.rows(), table);
  for (size_t i = 0; i < state.size(); ++i) putRows(exec, updated[i], *used.rows(), state[i]);
}

}  // namespace ops
}  // namespace topknot
