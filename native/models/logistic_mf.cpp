#include "models/logistic_mf.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/memory.h"
#include "backend/negatives.h"
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

/// Of the random numbers of a sweep's first row.
uint64_t streamOf(Purpose purpose, int64_t iteration) {
  return static_cast<uint64_t>(purpose) << 60 | static_cast<uint64_t>(iteration) << 36;
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
    args.stream = streamOf(purpose, iteration) + static_cast<uint64_t>(block.first);
    args.alpha = static_cast<float>(o.alpha);
    args.rate = static_cast<float>(o.learningRate);
    args.regularization = static_cast<float>(o.regularization);
    run(side.factors.device(), &Backend::logisticMf, "logisticMf", job.exec(), args);
    job.checkCancelled();
  });
}

void checkFold(Job& job, const Csr& rows, const Tensor& fixedFactors, const Tensor& fixedBiases, LogisticMfOptions& o) {
  expect(fixedFactors, "fixedFactors", DType::float32, 2);
  o.factors = fixedFactors.cols();
  checkOptions(o);
  expectInteractions(job, rows, "rows");
  expectFloats(fixedBiases, "fixedBiases", {fixedFactors.rows()});
  require(rows.cols == fixedFactors.rows(), ErrorCode::shape, "rows: expected ", fixedFactors.rows(),
          " columns, one for each fixed factor, but received ", rows.cols);
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

Tensor logisticMfFold(Job& job, Csr rows, Tensor fixedFactors, Tensor fixedBiases, LogisticMfOptions o) {
  checkFold(job, rows, fixedFactors, fixedBiases, o);
  const int64_t f = o.factors;
  Side x(job, rows, nullptr, nullptr, f);
  x.moveTo({}, std::numeric_limits<int64_t>::max());
  const Tensor y = strideOf(f) == f ? fixedFactors : paddedRows(fixedFactors);
  for (int64_t iteration = 0; iteration < o.iterations; ++iteration) {
    sweep(job, x, y, fixedBiases, Purpose::fold, iteration, o);
  }
  const Tensor out = Tensor::host<float>({rows.rows(), f + 1});
  for (int64_t r = 0; r < rows.rows(); ++r) {
    std::copy_n(x.factors.data<float>() + r * x.factors.cols(), f, out.data<float>() + r * (f + 1));
    out.data<float>()[r * (f + 1) + f] = x.biases.data<float>()[r];
  }
  expectBounded(job, out, o.learningRate, o.regularization);
  return out;
}

Explained logisticMfExplain(Job& job, Csr row, Tensor itemFactors, Tensor itemBiases, int64_t target,
                            LogisticMfOptions o) {
  checkFold(job, row, itemFactors, itemBiases, o);
  const int64_t f = o.factors, n = row.nnz(), items = itemFactors.rows();
  require(row.rows() == 1, ErrorCode::shape, "row: expected one row but received ", row.rows());
  require(target >= 0 && target < items, ErrorCode::range, "target: expected an item in 0 to ", items - 1,
          " but received ", target);
  Side x(job, row, nullptr, nullptr, f);
  x.moveTo({}, std::numeric_limits<int64_t>::max());
  const Tensor y = strideOf(f) == f ? itemFactors : paddedRows(itemFactors);
  const auto numbersOf = [&](int64_t item) {  // [y_i, 1], beside [x, b]
    const float* from = y.data<float>() + item * y.cols();
    std::vector<double> out(from, from + f);
    out.push_back(1);
    return out;
  };
  const auto at = [f](const Tensor& vectors, const Tensor& biases, int64_t k) {
    return static_cast<double>(k < f ? vectors.data<float>()[k] : biases.data<float>()[0]);
  };
  const CsrView v = row.view();
  const OwnItems own({v, x.ownBits.data<uint8_t>()}, 0);
  std::vector<double> parts(static_cast<size_t>(n * (f + 1)), 0.0), gradient(parts.size());
  for (int64_t iteration = 0; iteration < o.iterations; ++iteration) {
    std::fill(gradient.begin(), gradient.end(), 0.0);
    const auto add = [&](int64_t entry, int64_t item, double weight) {
      const std::vector<double> other = numbersOf(item);
      double score = static_cast<double>(itemBiases.data<float>()[item]);
      for (int64_t k = 0; k <= f; ++k) score += at(x.factors, x.biases, k) * other[static_cast<size_t>(k)];
      const double slope = weight - (1 + weight) / (1 + std::exp(-score));
      for (int64_t k = 0; k <= f; ++k) {
        gradient[static_cast<size_t>(entry * (f + 1) + k)] += slope * other[static_cast<size_t>(k)];
      }
    };
    for (int64_t e = 0; e < n; ++e) add(e, v.indices[e], o.alpha * static_cast<double>(v.values[e]));
    Random random(static_cast<uint64_t>(o.seed), streamOf(Purpose::fold, iteration));
    for (int64_t draw = 0; draw < n * o.negatives; ++draw) {
      const int32_t item = drawNegative(own, nullptr, items, random);
      if (item >= 0) add(draw / o.negatives, item, 0);
    }
    sweep(job, x, y, itemBiases, Purpose::fold, iteration, o);
    for (int64_t k = 0; k <= f; ++k) {
      const double rate = o.learningRate / (std::sqrt(at(x.squaredFactors, x.squaredBiases, k)) + 1e-8);
      for (int64_t e = 0; e < n; ++e) {
        double& part = parts[static_cast<size_t>(e * (f + 1) + k)];
        part += rate * (gradient[static_cast<size_t>(e * (f + 1) + k)] - o.regularization * part);
      }
    }
  }
  Explained out{Tensor::host<float>({n}), static_cast<double>(itemBiases.data<float>()[target])};
  const std::vector<double> wanted = numbersOf(target);
  for (int64_t e = 0; e < n; ++e) {
    const double* part = parts.data() + e * (f + 1);
    out.contributions.data<float>()[e] =
        static_cast<float>(std::inner_product(wanted.begin(), wanted.end(), part, 0.0));
  }
  return out;
}

}  // namespace ops
}  // namespace topknot
