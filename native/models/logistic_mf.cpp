#include "models/logistic_mf.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/memory.h"
#include "backend/registry.h"
#include "models/factor_rows.h"
#include "models/row_blocks.h"

namespace topknot {
namespace {

/// What random numbers are for, with the sweep and the row; 0 is left to the values that factors start from.
enum class Purpose : uint64_t { users = 1, items, fold };

void checkOptions(const LogisticMfOptions& o) {
  require(o.factors >= 1 && o.factors <= 4096, ErrorCode::range, "factors: expected 1 to 4096 but received ",
          o.factors);
  require(o.iterations >= 0 && o.iterations < (int64_t{1} << 24), ErrorCode::range,
          "iterations: expected 0 to 2^24 but received ", o.iterations);
  require(o.negatives >= 0 && o.negatives <= 1024, ErrorCode::range, "negatives: expected 0 to 1024 but received ",
          o.negatives);
  expectNumber(o.learningRate, 0, 1e6, "learningRate");
  expectNumber(o.regularization, 0, 1e6, "regularization");
  expectNumber(o.alpha, 0, 1e6, "alpha");
  expectNumber(o.initStd, 0, 1e6, "initStd");
  require(o.deviceBytes >= 0, ErrorCode::range, "deviceBytes: expected 0 or more but received ", o.deviceBytes);
}

/// One side of the model while it is learned.
struct Side {
  Csr entries;
  Tensor ownBits, factors, biases, squaredFactors, squaredBiases;
  std::optional<RowBlocks> blocks;  // of the entries and their bits

  /// On the host.
  Side(Job& job, const Csr& m, const Tensor* startFactors, const Tensor* startBiases, int64_t f)
      : entries(m),
        ownBits(Tensor::host<uint8_t>({2 * m.nnz()})),
        factors(startFactors ? paddedRows(*startFactors) : Tensor::host<float>({m.rows(), strideOf(f)}, true)),
        biases(Tensor::host<float>({m.rows()}, true)),
        squaredFactors(Tensor::host<float>({m.rows(), strideOf(f)}, true)),
        squaredBiases(Tensor::host<float>({m.rows()}, true)) {
    const std::vector<uint8_t> bits = ownItemBits(job, m);
    std::copy(bits.begin(), bits.end(), ownBits.data<uint8_t>());
    if (startBiases) std::copy_n(startBiases->data<float>(), m.rows(), biases.data<float>());
  }
  /// `room`: how many bytes of the entries may lie there at a time.
  void moveTo(Device device, int64_t room) {
    for (Tensor* t : {&factors, &biases, &squaredFactors, &squaredBiases}) *t = copyTo(*t, device);
    blocks.emplace(entries, device, room, ownBits);
  }
};

void sweep(Job& job, const Side& side, const Tensor& otherFactors, const Tensor& otherBiases, Purpose purpose,
           int64_t iteration, const LogisticMfOptions& o) {
  side.blocks->each([&](const RowBlock& block) {
    LogisticMfArgs args{};
    args.own = {block.rows.view(), block.bytes.data<uint8_t>()};
    args.stride = side.factors.cols();
    args.otherFactors = otherFactors.data<float>();
    args.otherBiases = otherBiases.data<float>();
    args.factors = side.factors.data<float>() + block.first * args.stride;
    args.biases = side.biases.data<float>() + block.first;
    args.squaredFactors = side.squaredFactors.data<float>() + block.first * args.stride;
    args.squaredBiases = side.squaredBiases.data<float>() + block.first;
    args.negatives = o.negatives;
    args.seed = static_cast<uint64_t>(o.seed);
    args.stream = (static_cast<uint64_t>(purpose) << 60 | static_cast<uint64_t>(iteration) << 36) +
                  static_cast<uint64_t>(block.first);
    args.alpha = static_cast<float>(o.alpha);
    args.rate = static_cast<float>(o.learningRate);
    args.regularization = static_cast<float>(o.regularization);
    run(side.factors.device(), &Backend::logisticMf, "logisticMf", job.exec(), args);
    job.checkCancelled();
  });
}

}  // namespace

namespace ops {

LogisticMfFactors logisticMfFit(Job& job, Csr users, Csr items, std::optional<LogisticMfFactors> start,
                                LogisticMfOptions o) {
  checkOptions(o);
  const Device device = deviceNamed(o.device.value_or("cpu"));
  expectInteractions(job, users, "users");
  expectInteractions(job, items, "items");
  require(items.rows() == users.cols && items.cols == users.rows() && items.nnz() == users.nnz(), ErrorCode::shape,
          "items: expected the transpose of users, [", users.cols, ", ", users.rows(), "] with ", users.nnz(),
          " entries, but received [", items.rows(), ", ", items.cols, "] with ", items.nnz());
  if (start) {
    expectFloats(start->userFactors, "start.userFactors", {users.rows(), o.factors});
    expectFloats(start->itemFactors, "start.itemFactors", {users.cols, o.factors});
    expectFloats(start->userBiases, "start.userBiases", {users.rows()});
    expectFloats(start->itemBiases, "start.itemBiases", {users.cols});
  }
  Side x(job, users, start ? &start->userFactors : nullptr, start ? &start->userBiases : nullptr, o.factors);
  Side y(job, items, start ? &start->itemFactors : nullptr, start ? &start->itemBiases : nullptr, o.factors);
  const double std = o.initStd / std::sqrt(static_cast<double>(o.factors));
  startRows(job, x.factors, o.factors, std, o.seed, userRowKeys);
  startRows(job, y.factors, o.factors, std, o.seed, 0);
  const int64_t others = 8 * (strideOf(o.factors) + 1) * (users.rows() + items.rows());
  const int64_t room = roomForRows(users, others, device, o.deviceBytes);
  x.moveTo(device, room);
  y.moveTo(device, room);

  Progress progress{0, static_cast<double>(o.iterations), std::numeric_limits<double>::quiet_NaN()};
  job.progress(progress);
  for (int64_t iteration = 0; iteration < o.iterations; ++iteration) {
    sweep(job, y, x.factors, x.biases, Purpose::items, iteration, o);
    progress.done += 0.5;
    job.progress(progress);
    sweep(job, x, y.factors, y.biases, Purpose::users, iteration, o);
    progress.done = static_cast<double>(iteration + 1);
    job.progress(progress);
  }
  for (Tensor* t : {&x.factors, &x.biases, &y.factors, &y.biases}) *t = copyTo(*t, {});
  clearEmptyRows(users, x.factors);
  clearEmptyRows(users, Tensor{x.biases.buffer, DType::float32, {users.rows(), 1}, nullptr});
  LogisticMfFactors out{trimmedRows(x.factors, o.factors), trimmedRows(y.factors, o.factors), x.biases, y.biases};
  for (const Tensor& t : {out.userFactors, out.itemFactors, out.userBiases, out.itemBiases}) {
    expectBounded(job, t, o.learningRate, o.regularization);
  }
  return out;
}

Tensor logisticMfFold(Job& job, Csr row, Tensor itemFactors, Tensor itemBiases, LogisticMfOptions o) {
  expect(itemFactors, "itemFactors", DType::float32, 2);
  const int64_t f = o.factors = itemFactors.cols(), items = itemFactors.rows();
  checkOptions(o);
  expectInteractions(job, row, "row");
  expectFloats(itemBiases, "itemBiases", {items});
  require(row.rows() == 1 && row.cols == items, ErrorCode::shape, "row: expected shape [1, ", items, "] but received [",
          row.rows(), ", ", row.cols, "]");
  Side x(job, row, nullptr, nullptr, f);
  x.moveTo({}, std::numeric_limits<int64_t>::max());
  const Tensor y = strideOf(f) == f ? itemFactors : paddedRows(itemFactors);
  for (int64_t iteration = 0; iteration < o.iterations; ++iteration) {
    sweep(job, x, y, itemBiases, Purpose::fold, iteration, o);
  }
  const Tensor out = Tensor::host<float>({1, f + 1});
  std::copy_n(x.factors.data<float>(), f, out.data<float>());
  out.data<float>()[f] = x.biases.data<float>()[0];
  return out;
}

}  // namespace ops
}  // namespace topknot
