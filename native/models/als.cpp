#include "models/als.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "backend/memory.h"
#include "backend/registry.h"
#include "models/als_subspace.h"
#include "models/factors.h"
#include "models/row_blocks.h"
#include "ops/queued.h"

namespace topknot {
namespace {

void checkOptions(const AlsOptions& o) {
  require(o.factors >= 1 && o.factors <= 4096, ErrorCode::range, "factors: expected 1 to 4096 but received ",
          o.factors);
  require(o.cgSteps >= 1 && o.cgSteps <= 10000, ErrorCode::range, "cgSteps: expected 1 to 10000 but received ",
          o.cgSteps);
  require(o.blockSize >= 1 && o.blockSize <= 4096, ErrorCode::range, "blockSize: expected 1 to 4096 but received ",
          o.blockSize);
  require(o.iterations >= 0, ErrorCode::range, "iterations: expected 0 or more but received ", o.iterations);
  checkNumber(o.unobservedWeight, 0, "unobservedWeight");
  checkNumber(o.alpha, 0, "alpha");
  checkNumber(o.regularization, 0, "regularization");
  checkNumber(o.regularizationExponent, 0, "regularizationExponent");
  checkNumber(o.initStd, 0, "initStd");
  require(o.deviceBytes >= 0, ErrorCode::range, "deviceBytes: expected 0 or more but received ", o.deviceBytes);
}

/// The matrix with weights alpha * value.
Csr weighted(Csr m, double alpha) {
  if (alpha == 1) return m;
  const Tensor values = Tensor::host<float>({m.nnz()});
  for (int64_t e = 0; e < m.nnz(); ++e) {
    values.data<float>()[e] = static_cast<float>(alpha * static_cast<double>(m.values.data<float>()[e]));
  }
  m.values = values;
  return m;
}

/// λ of every row.
Tensor lambdas(const Csr& rows, int64_t others, const AlsOptions& o) {
  const Tensor out = Tensor::host<float>({rows.rows()});
  std::fill_n(out.data<float>(), rows.rows(), static_cast<float>(o.regularization));
  if (o.regularizationForm == AlsRegularization::constant) return out;
  const int64_t* indptr = rows.indptr.data<int64_t>();
  for (int64_t u = 0; u < rows.rows(); ++u) {
    const double size =
        static_cast<double>(indptr[u + 1] - indptr[u]) + o.unobservedWeight * static_cast<double>(others);
    out.data<float>()[u] = static_cast<float>(o.regularization * std::pow(size, o.regularizationExponent));
  }
  return out;
}

float bonus(const AlsOptions& o) {
  return o.objective == AlsObjective::hkv ? static_cast<float>(o.unobservedWeight) : 0.0f;
}

Tensor gramOf(Job& job, const Tensor& factors, float scale = 1) {
  const Tensor out = empty<float>(factors.device(), {factors.cols(), factors.cols()});
  run(factors.device(), &Backend::gram, "gram", job.exec(), GramArgs{view(factors), scale, out.data<float>()});
  job.checkCancelled();
  return out;
}

Tensor scaled(const Tensor& matrix, double weight) {
  const Tensor gram = copyTo(matrix, Device{}), out = Tensor::host<float>(gram.shape);
  for (int64_t i = 0; i < gram.count(); ++i) {
    out.data<float>()[i] = static_cast<float>(weight * static_cast<double>(gram.data<float>()[i]));
  }
  return copyTo(out, matrix.device());
}

/// One side of the matrix, and the λ of its rows.
struct Side {
  RowBlocks blocks;
  Tensor reg;
};

Side sideOf(const Csr& rows, int64_t others, const AlsOptions& o, Device device, int64_t mostBytes) {
  return {RowBlocks(rows, device, mostBytes), copyTo(lambdas(rows, others, o), device)};
}

/// Solves all rows into `out`, which conjugate gradients and subspace steps start from.
void solve(Job& job, const Side& side, const Tensor& fixed, const Tensor& gram, const AlsOptions& o,
           const Tensor& out) {
  const Tensor weightedGram = scaled(gram, o.unobservedWeight);
  side.blocks.each([&](const RowBlock& block) {
    const Tensor to = rowsOf(out, block.first, block.rows.rows());
    const float* reg = side.reg.data<float>() + block.first;
    if (o.solver == AlsSolver::subspace) {
      solveSubspaces(job, block.rows, reg, fixed, weightedGram, bonus(o), o.blockSize, to);
      return;
    }
    const bool exact = o.solver == AlsSolver::cholesky;
    run(fixed.device(), exact ? &Backend::alsCholesky : &Backend::alsCg, exact ? "alsCholesky" : "alsCg", job.exec(),
        AlsArgs{block.rows.view(), view(fixed), weightedGram.data<float>(), reg, bonus(o),
                static_cast<int32_t>(o.cgSteps), to.data<float>()});
    job.checkCancelled();
  });
}

/// The objective without its regularization.
double lossOf(Job& job, const Side& users, const AlsFactors& factors, const Tensor& itemGram, const AlsOptions& o) {
  double sum = 0;
  users.blocks.each([&](const RowBlock& block) {
    const Tensor loss = empty<double>(itemGram.device(), {1});
    const Tensor x = rowsOf(factors.userFactors, block.first, block.rows.rows());
    run(itemGram.device(), &Backend::alsLoss, "alsLoss", job.exec(),
        AlsLossArgs{block.rows.view(), view(x), view(factors.itemFactors), itemGram.data<float>(),
                    static_cast<float>(o.unobservedWeight), bonus(o), loss.data<double>()});
    job.checkCancelled();
    sum += copyTo(loss, Device{}).data<double>()[0];
  });
  return sum;
}

/// Σ_u λ_u |x_u|².
double penalty(const Tensor& of, const Tensor& lambda) {
  const Tensor factors = copyTo(of, Device{}), reg = copyTo(lambda, Device{});
  double sum = 0;
  for (int64_t u = 0; u < factors.rows(); ++u) {
    double squares = 0;
    for (const float x :
         factors.span<float>().subspan(static_cast<size_t>(u * factors.cols()), static_cast<size_t>(factors.cols()))) {
      squares += static_cast<double>(x) * static_cast<double>(x);
    }
    sum += squares * static_cast<double>(reg.data<float>()[u]);
  }
  return sum;
}

}  // namespace

namespace ops {

AlsFactors alsFit(Job& job, Csr users, Csr items, std::optional<Tensor> userFactors, std::optional<Tensor> itemFactors,
                  AlsOptions o) {
  checkOptions(o);
  const Device device = deviceNamed(o.device);
  checkBothWays(job, users, items);
  if (userFactors) checkFactors(*userFactors, "userFactors", users.rows(), o.factors);
  if (itemFactors) checkFactors(*itemFactors, "itemFactors", items.rows(), o.factors);

  users = weighted(users, o.alpha);
  items = weighted(items, o.alpha);
  const double std = o.initStd / std::sqrt(static_cast<double>(o.factors));
  AlsFactors out;
  out.userFactors = userFactors ? copyOf(*userFactors)
                                : randomFactors(job, users.rows(), o.factors, o.factors, std, o.seed, userKeys);
  out.itemFactors =
      itemFactors ? copyOf(*itemFactors) : randomFactors(job, items.rows(), o.factors, o.factors, std, o.seed, 0);
  const int64_t room = roomForRows(users, 4 * o.factors * (users.rows() + items.rows()), device, o.deviceBytes);
  out.userFactors = copyTo(out.userFactors, device);
  out.itemFactors = copyTo(out.itemFactors, device);
  const Side byUser = sideOf(users, items.rows(), o, device, room),
             byItem = sideOf(items, users.rows(), o, device, room);

  Progress progress{0, static_cast<double>(o.iterations), std::numeric_limits<double>::quiet_NaN()};
  job.progress(progress);
  Tensor itemGram = gramOf(job, out.itemFactors);
  for (int64_t iteration = 0; iteration < o.iterations; ++iteration) {
    solve(job, byUser, out.itemFactors, itemGram, o, out.userFactors);
    progress.done += 0.5;
    job.progress(progress);
    solve(job, byItem, out.userFactors, gramOf(job, out.userFactors), o, out.itemFactors);
    itemGram = gramOf(job, out.itemFactors);
    if (o.computeLoss) {
      progress.loss = lossOf(job, byUser, out, itemGram, o) + penalty(out.userFactors, byUser.reg) +
                      penalty(out.itemFactors, byItem.reg);
      out.loss.push_back(progress.loss);
    }
    progress.done = static_cast<double>(iteration + 1);
    job.progress(progress);
  }
  out.userFactors = copyTo(out.userFactors, Device{});
  out.itemFactors = copyTo(out.itemFactors, Device{});
  return out;
}

Tensor alsGram(Job& job, Tensor factors) {
  expect(factors, "factors", DType::float32, 2);
  return gramOf(job, factors);
}

Tensor alsSolve(Job& job, Csr rows, Tensor fixed, std::optional<Tensor> gram, std::optional<Tensor> start,
                AlsOptions o) {
  expect(fixed, "fixed", DType::float32, 2);
  o.factors = fixed.cols();
  checkOptions(o);
  expectOnHost(rows, "rows");
  checkEntries(job, rows, "rows");
  require(rows.cols == fixed.rows(), ErrorCode::shape, "rows: expected ", fixed.rows(),
          " columns, one for each fixed factor, but received ", rows.cols);
  const Device device = fixed.device();
  if (gram) {
    checkFactors(*gram, "gram", o.factors, o.factors);
    expectSameDevice(*gram, "gram", fixed, "fixed");
  }
  if (start) {
    expectOnHost(*start, "start");
    checkFactors(*start, "start", rows.rows(), o.factors);
  }
  if (o.solver == AlsSolver::subspace) o.solver = AlsSolver::cholesky;
  rows = weighted(rows, o.alpha);
  // Conjugate gradients change what they start from: a copy.
  const Tensor from = start ? copyOf(*start) : Tensor::host(DType::float32, {rows.rows(), o.factors}, true);
  const Tensor out = copyTo(from, device);
  solve(job, sideOf(rows, fixed.rows(), o, device, std::numeric_limits<int64_t>::max()), fixed,
        gram ? *gram : gramOf(job, fixed), o, out);
  return out;
}

Tensor alsExplain(Job& job, Csr row, Tensor itemFactors, std::optional<Tensor> gram, int64_t target, AlsOptions o) {
  expect(itemFactors, "itemFactors", DType::float32, 2);
  const int64_t f = o.factors = itemFactors.cols();
  checkOptions(o);
  checkEntries(job, row, "row");
  require(row.rows() == 1 && row.cols == itemFactors.rows(), ErrorCode::shape, "row: expected shape [1, ",
          itemFactors.rows(), "] but received [", row.rows(), ", ", row.cols, "]");
  require(target >= 0 && target < itemFactors.rows(), ErrorCode::range, "target: expected an item in 0 to ",
          itemFactors.rows() - 1, " but received ", target);
  if (gram) checkFactors(*gram, "gram", f, f);
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Matrix> items(itemFactors.data<float>(), itemFactors.rows(), f);
  const Tensor g = gram ? *gram : gramOf(job, itemFactors);
  const float lambda = lambdas(row, itemFactors.rows(), o).data<float>()[0];
  const CsrView v = row.view();
  Eigen::MatrixXd a = o.unobservedWeight * Eigen::Map<const Matrix>(g.data<float>(), f, f).cast<double>();
  a.diagonal().array() += static_cast<double>(lambda);
  for (int64_t e = 0; e < row.nnz(); ++e) {
    const Eigen::VectorXd y = items.row(v.indices[e]).cast<double>();
    a.selfadjointView<Eigen::Lower>().rankUpdate(y, o.alpha * static_cast<double>(v.values[e]));
  }
  const Eigen::LLT<Eigen::MatrixXd, Eigen::Lower> factor(a);
  require(factor.info() == Eigen::Success, ErrorCode::value, "ALS: the system of the row (", row.nnz(),
          " entries, regularization ", lambda, ") is not positive definite: use a larger regularization");
  const Eigen::VectorXd z = factor.solve(items.row(target).cast<double>().transpose());
  const Tensor out = Tensor::host<float>({row.nnz()});
  for (int64_t e = 0; e < row.nnz(); ++e) {
    const double weight = o.alpha * static_cast<double>(v.values[e]) + static_cast<double>(bonus(o));
    out.data<float>()[e] = static_cast<float>(weight * z.dot(items.row(v.indices[e]).cast<double>().transpose()));
  }
  return out;
}

}  // namespace ops
}  // namespace topknot
