#include "models/ratings.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>

#include "backend/memory.h"
#include "backend/registry.h"
#include "models/factors.h"
#include "models/placed.h"
#include "ops/queued.h"

namespace topknot {
namespace {

// Where a row has its 1 and its bias.
int64_t oneAt(RatingSide side, int64_t factors) { return side == RatingSide::users ? factors + 1 : factors; }
int64_t biasAt(RatingSide side, int64_t factors) { return side == RatingSide::users ? factors : factors + 1; }

/// Sums body(begin, end) over fixed blocks of [0, count), in their order.
template <typename F>
double blockSum(Job& job, int64_t count, int64_t block, F&& body) {
  const int64_t blocks = (count + block - 1) / block;
  std::vector<double> sums(static_cast<size_t>(blocks), 0.0);
  parallelFor(blocks, 1, job.exec(), [&](int64_t b, int64_t, int) {
    sums[static_cast<size_t>(b)] = body(b * block, std::min(count, (b + 1) * block));
  });
  job.checkCancelled();
  double sum = 0;
  for (const double s : sums) sum += s;
  return sum;
}

}  // namespace

double meanRating(Job& job, const Csr& ratings) {
  const float* values = ratings.values.data<float>();
  const double sum = blockSum(job, ratings.nnz(), 1 << 16, [&](int64_t begin, int64_t end) {
    double s = 0;
    for (int64_t e = begin; e < end; ++e) s += static_cast<double>(values[e]);
    return s;
  });
  return sum / static_cast<double>(ratings.nnz());
}

Tensor trainingRows(Job& job, const std::optional<Tensor>& start, const Csr& ratings, int64_t factors, int64_t stride,
                    RatingSide side, double mean, double initStd, int64_t seed) {
  const int64_t rows = ratings.rows();
  const int64_t* indptr = ratings.indptr.data<int64_t>();
  const bool users = side == RatingSide::users;
  const int64_t one = oneAt(side, factors), bias = biasAt(side, factors);
  const Tensor out = start ? Tensor::host(DType::float32, {rows, stride}, true)
                           : randomFactors(job, rows, factors, stride, initStd, seed, users ? userKeys : 0);
  for (int64_t r = 0; r < rows; ++r) {
    float* row = out.data<float>() + r * stride;
    if (start) {
      const float* from = start->data<float>() + r * (factors + 2);
      std::copy_n(from, factors + 2, row);
      if (from[one] != 0 && !users) row[bias] = static_cast<float>(static_cast<double>(from[bias]) - mean);
    } else if (indptr[r] == indptr[r + 1]) {
      std::fill_n(row, factors, 0.0f);
    }
    row[one] = 1;
  }
  return out;
}

Tensor modelRows(Job& job, const Tensor& training, int64_t factors, RatingSide side, double mean) {
  const bool users = side == RatingSide::users;
  const int64_t stride = training.cols();
  const Tensor out = Tensor::host<float>({training.rows(), factors + 2});
  parallelFor(training.rows(), 1024, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = out.data<float>() + r * (factors + 2);
      std::copy_n(training.data<float>() + r * stride, factors + 2, row);
      if (!users) row[factors + 1] = static_cast<float>(static_cast<double>(row[factors + 1]) + mean);
      for (int64_t k = 0; k < factors + 2; ++k) {
        require(std::isfinite(row[k]), ErrorCode::value, "ratings: the fit has overflowed float32 at ",
                users ? "user" : "item", " row ", r, ": use a smaller learning rate or a larger regularization");
      }
    }
  });
  job.checkCancelled();
  return out;
}

double squaredError(Job& job, const Csr& ratings, const Tensor& users, const Tensor& items) {
  const Tensor scores = Tensor::host<float>({ratings.nnz()});
  run(users.device(), &Backend::csrScores, "csrScores", job.exec(),
      CsrScoresArgs{ratings.view(), view(users), view(items), false, scores.data<float>()});
  job.checkCancelled();
  const float *values = ratings.values.data<float>(), *predicted = scores.data<float>();
  return blockSum(job, ratings.nnz(), 1 << 16, [&](int64_t begin, int64_t end) {
    double s = 0;
    for (int64_t e = begin; e < end; ++e) {
      const double error = static_cast<double>(values[e]) - static_cast<double>(predicted[e]);
      s += error * error;
    }
    return s;
  });
}

double ratingPenalty(const Csr& ratings, const Tensor& rows, RatingSide side, double mean) {
  const int64_t cols = rows.cols(), one = oneAt(side, cols - 2);
  const int64_t* indptr = ratings.indptr.data<int64_t>();
  double sum = 0;
  for (int64_t r = 0; r < rows.rows(); ++r) {
    double squares = 0;
    for (int64_t k = 0; k < cols; ++k) {
      double value = static_cast<double>(rows.data<float>()[r * cols + k]);
      if (k == cols - 1 && side == RatingSide::items) value -= mean;
      if (k != one) squares += value * value;
    }
    sum += squares * static_cast<double>(indptr[r + 1] - indptr[r]);
  }
  return sum;
}

RatingSystems::RatingSystems(const Csr& rows, RatingSide side, double mean, double regularization, Device device)
    : rows_(copyTo(rows, device)), side_(side) {
  const Tensor reg = Tensor::host<float>({rows.rows()}),
               ones = Tensor::host<float>({std::max(rows.nnz(), rows.rows())});
  const int64_t* indptr = rows.indptr.data<int64_t>();
  for (int64_t r = 0; r < rows.rows(); ++r) {
    reg.data<float>()[r] = static_cast<float>(regularization * static_cast<double>(indptr[r + 1] - indptr[r]));
  }
  std::fill_n(ones.data<float>(), ones.count(), 1.0f);
  const Tensor mu = Tensor::host<float>({1});
  mu.data<float>()[0] = static_cast<float>(mean);
  reg_ = copyTo(reg, device), ones_ = copyTo(ones, device), mean_ = copyTo(mu, device);
}

Tensor RatingSystems::solve(Job& job, const Tensor& fixed) const {
  const Device device = fixed.device();
  const bool users = side_ == RatingSide::users;
  const RatingSide other = users ? RatingSide::items : RatingSide::users;
  const int64_t n = fixed.rows(), factors = fixed.cols() - 2, f = factors + 1, nnz = rows_.nnz();
  const auto copy = [&](int64_t rows, int64_t cols, const float* from, int64_t fromStride, float* to, int64_t stride) {
    run(device, &Backend::copyMatrix, "copyMatrix", job.exec(),
        CopyMatrixArgs{
            .rows = rows, .cols = cols, .from = from, .fromStride = fromStride, .to = to, .toStride = stride});
    job.checkCancelled();
  };
  const auto combine = [&](Binary function, const float* a, const float* b, int64_t bStride, int64_t count,
                           float* out) {
    const BinaryArgs args{function, a, b, 1, {count}, {1}, {bStride}, out};
    run(device, &Backend::binary, "binary", job.exec(), args);
    job.checkCancelled();
  };
  // The other side's [vector, 1] are the regressors; its bias, and the mean, are taken off the ratings.
  const Tensor regressors = empty<float>(device, {n, f}), known = empty<float>(device, {n, 1});
  copy(n, factors, fixed.data<float>(), f + 1, regressors.data<float>(), f);
  copy(n, 1, ones_.data<float>(), 0, regressors.data<float>() + factors, f);
  copy(n, 1, fixed.data<float>() + biasAt(other, factors), f + 1, known.data<float>(), 1);
  if (!users) combine(Binary::add, known.data<float>(), mean_.data<float>(), 0, n, known.data<float>());
  const Tensor targets = empty<float>(device, {nnz});
  const MatrixView ones{ones_.data<float>(), rows_.rows(), 1};
  run(device, &Backend::csrScores, "csrScores", job.exec(),
      CsrScoresArgs{rows_.view(), ones, view(known), false, targets.data<float>()});
  job.checkCancelled();
  combine(Binary::subtract, rows_.values.data<float>(), targets.data<float>(), 1, nnz, targets.data<float>());

  const Tensor solved = empty<float>(device, {rows_.rows(), f});
  const CsrView v = rows_.view();
  AlsArgs args{};
  args.rows = {v.indptr, v.indices, ones_.data<float>(), v.rows, v.cols};
  args.fixed = view(regressors);
  args.reg = reg_.data<float>();
  args.out = solved.data<float>();
  args.targets = targets.data<float>();
  run(device, &Backend::alsCholesky, "alsCholesky", job.exec(), args);
  job.checkCancelled();

  const Tensor biases = empty<float>(device, {v.rows, 1}), out = empty<float>(device, {v.rows, f + 1});
  copy(v.rows, 1, solved.data<float>() + factors, f, biases.data<float>(), 1);
  if (!users) combine(Binary::add, biases.data<float>(), mean_.data<float>(), 0, v.rows, biases.data<float>());
  copy(v.rows, factors, solved.data<float>(), f, out.data<float>(), f + 1);
  copy(v.rows, 1, ones_.data<float>(), 0, out.data<float>() + oneAt(side_, factors), f + 1);
  copy(v.rows, 1, biases.data<float>(), 1, out.data<float>() + biasAt(side_, factors), f + 1);
  return out;
}

namespace ops {

Tensor ratingSolve(Job& job, Csr rows, Tensor fixed, RatingSide side, double mean, double regularization) {
  expect(fixed, "fixed", DType::float32, 2);
  expectOnHost(rows, "rows");
  checkEntries(job, rows, "rows");
  checkNumber(regularization, 0, "regularization");
  require(fixed.cols() >= 2, ErrorCode::shape, "fixed: expected rows of 2 or more but received ", text(fixed.shape));
  require(rows.cols == fixed.rows(), ErrorCode::shape, "rows: expected ", fixed.rows(),
          " columns, one for each fixed row, but received ", rows.cols);
  return RatingSystems(rows, side, mean, regularization, fixed.device()).solve(job, fixed);
}

Explained ratingExplain(Job& job, Csr row, Tensor itemRows, std::optional<Tensor> implicit, int64_t target,
                        double regularization) {
  expect(itemRows, "itemRows", DType::float32, 2);
  checkEntries(job, row, "row");
  checkNumber(regularization, 0, "regularization");
  require(itemRows.cols() >= 2, ErrorCode::shape, "itemRows: expected rows of 2 or more but received ",
          text(itemRows.shape));
  require(row.rows() == 1 && row.cols == itemRows.rows(), ErrorCode::shape, "row: expected shape [1, ", itemRows.rows(),
          "] but received [", row.rows(), ", ", row.cols, "]");
  require(target >= 0 && target < itemRows.rows(), ErrorCode::range, "target: expected an item in 0 to ",
          itemRows.rows() - 1, " but received ", target);
  const int64_t f = itemRows.cols() - 2, n = row.nnz();
  if (implicit) checkFactors(*implicit, "implicit", itemRows.rows(), f);
  using Rows = Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  const Rows items(itemRows.data<float>(), itemRows.rows(), f + 2);  // [q_i, 1, μ + b_i]
  const CsrView v = row.view();
  const auto regressors = [&](int64_t i) -> Eigen::VectorXd { return items.row(i).head(f + 1).cast<double>(); };

  Eigen::MatrixXd a = Eigen::MatrixXd::Identity(f + 1, f + 1) * (regularization * static_cast<double>(n));
  for (int64_t e = 0; e < n; ++e) a.selfadjointView<Eigen::Lower>().rankUpdate(regressors(v.indices[e]));
  const Eigen::LLT<Eigen::MatrixXd, Eigen::Lower> factor(a);
  require(factor.info() == Eigen::Success, ErrorCode::value, "ratings: the system of the row (", n,
          " entries, regularization ", regularization, ") is not positive definite: use a larger regularization");
  const Eigen::VectorXd solved = factor.solve(regressors(target));
  Explained out{Tensor::host<float>({n}), static_cast<double>(items(target, f + 1))};
  Eigen::VectorXd left = items.row(target).head(f).cast<double>();  // q_t - Σ w_k q_k
  for (int64_t e = 0; e < n; ++e) {
    const int64_t i = v.indices[e];
    const double w = solved.dot(regressors(i));
    left -= w * items.row(i).head(f).cast<double>().transpose();
    const double rating = static_cast<double>(v.values[e]) - static_cast<double>(items(i, f + 1));
    out.contributions.data<float>()[e] = static_cast<float>(w * rating);
  }
  if (!implicit) return out;
  const Rows y(implicit->data<float>(), implicit->rows(), f);
  for (int64_t e = 0; e < n; ++e) {
    const double added = y.row(v.indices[e]).cast<double>().dot(left.transpose()) / std::sqrt(static_cast<double>(n));
    out.contributions.data<float>()[e] += static_cast<float>(added);
  }
  return out;
}

}  // namespace ops
}  // namespace topknot
