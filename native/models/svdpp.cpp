#include "models/svdpp.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/registry.h"
#include "core/random.h"
#include "models/factors.h"
#include "models/placed.h"

namespace topknot {
namespace {

constexpr int64_t batchUsers = 64;
constexpr uint64_t orders = uint64_t{4} << 56;  // what random numbers are for: the high bits of their row

void fisherYates(std::vector<int32_t>& values, Random random) {
  for (size_t i = values.size(); i-- > 1;) std::swap(values[i], values[random.below(i + 1)]);
}

struct Batch {
  std::vector<int32_t> users;
  std::vector<int64_t> starts, runs;
  std::vector<SvdppEntry> entries;
};

/// A batch where the kernel reads it.
struct PlacedBatch {
  Placed<int32_t> users;
  Placed<int64_t> starts, runs;
  Placed<SvdppEntry> entries;

  PlacedBatch(Batch& b, Device device)
      : users(b.users, device), starts(b.starts, device), runs(b.runs, device), entries(b.entries, device) {}
};

std::vector<Batch> makeBatches(Job& job, const CsrView& v, int64_t seed) {
  std::vector<int32_t> order;
  for (int64_t u = 0; u < v.rows; ++u) {
    if (v.indptr[u] < v.indptr[u + 1]) order.push_back(static_cast<int32_t>(u));
  }
  fisherYates(order, Random(static_cast<uint64_t>(seed), orders));
  const int64_t users = static_cast<int64_t>(order.size());
  std::vector<Batch> batches(static_cast<size_t>((users + batchUsers - 1) / batchUsers));
  parallelFor(static_cast<int64_t>(batches.size()), 1, job.exec(), [&](int64_t b, int64_t, int) {
    Batch& batch = batches[static_cast<size_t>(b)];
    batch.users.assign(order.begin() + b * batchUsers, order.begin() + std::min(users, (b + 1) * batchUsers));
    int64_t entry = 0;
    for (size_t at = 0; at < batch.users.size(); ++at) {
      batch.starts.push_back(entry);
      for (int64_t e = v.indptr[batch.users[at]]; e < v.indptr[batch.users[at] + 1]; ++e) {
        batch.entries.push_back({v.indices[e], static_cast<int32_t>(at), entry++});
      }
    }
    std::sort(batch.entries.begin(), batch.entries.end(), [](const SvdppEntry& a, const SvdppEntry& c) {
      return a.item != c.item ? a.item < c.item : a.entry < c.entry;
    });
    for (size_t e = 0; e < batch.entries.size(); ++e) {
      if (e == 0 || batch.entries[e].item != batch.entries[e - 1].item) batch.runs.push_back(static_cast<int64_t>(e));
    }
    batch.runs.push_back(entry);
  });
  job.checkCancelled();
  return batches;
}

/// The ratings less `mean`.
Csr centred(const Csr& ratings, double mean) {
  Csr out = ratings;
  out.values = Tensor::host<float>({ratings.nnz()});
  for (int64_t e = 0; e < ratings.nnz(); ++e) {
    out.values.data<float>()[e] = static_cast<float>(static_cast<double>(ratings.values.data<float>()[e]) - mean);
  }
  return out;
}

void checkOptions(const SvdppOptions& o) {
  require(o.factors >= 1 && o.factors <= 4096, ErrorCode::range, "factors: expected 1 to 4096 but received ",
          o.factors);
  require(o.iterations >= 1, ErrorCode::range, "iterations: expected 1 or more but received ", o.iterations);
  checkNumber(o.learningRate, 0, "learningRate");
  checkNumber(o.learningRateDecay, 0, "learningRateDecay");
  checkNumber(o.regularization, 0, "regularization");
  checkNumber(o.initStd, 0, "initStd");
}

}  // namespace

namespace ops {

Tensor svdppUsers(Job& job, Csr users, Tensor own, Tensor implicit) {
  checkEntries(job, users, "users");
  expect(implicit, "implicit", DType::float32, 2);
  const int64_t f = implicit.cols();
  checkFactors(own, "own", users.rows(), f + 2);
  checkFactors(implicit, "implicit", users.cols, f);
  const CsrView v = users.view();
  const Tensor out = copyOf(own);
  parallelFor(v.rows, 64, job.exec(), [&](int64_t begin, int64_t end, int) {
    std::vector<float> sum(static_cast<size_t>(f));
    for (int64_t u = begin; u < end; ++u) {
      const int64_t n = v.indptr[u + 1] - v.indptr[u];
      if (n == 0) continue;
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t e = v.indptr[u]; e < v.indptr[u + 1]; ++e) {
        const float* y = implicit.data<float>() + v.indices[e] * f;
        for (int64_t k = 0; k < f; ++k) sum[static_cast<size_t>(k)] += y[k];
      }
      const float scale = 1.0f / std::sqrt(static_cast<float>(n));
      for (int64_t k = 0; k < f; ++k) out.data<float>()[u * (f + 2) + k] += scale * sum[static_cast<size_t>(k)];
    }
  });
  job.checkCancelled();
  return out;
}

Tensor svdppSolve(Job& job, Csr rows, Tensor itemRows, Tensor implicit, double mean, double regularization) {
  checkEntries(job, rows, "rows");
  expect(implicit, "implicit", DType::float32, 2);
  const int64_t f = implicit.cols();
  checkFactors(itemRows, "itemRows", rows.cols, f + 2);
  // What the y_j predict is taken off the ratings; the rest is explained by p_u and b_u.
  const Tensor fromItems = svdppUsers(job, rows, Tensor::host(DType::float32, {rows.rows(), f + 2}, true), implicit);
  const Tensor predicted = Tensor::host<float>({rows.nnz()});
  run(itemRows.device(), &Backend::csrScores, "csrScores", job.exec(),
      CsrScoresArgs{rows.view(), view(fromItems), view(itemRows), false, predicted.data<float>()});
  job.checkCancelled();
  Csr rest = rows;
  rest.values = Tensor::host<float>({rows.nnz()});
  for (int64_t e = 0; e < rows.nnz(); ++e) {
    rest.values.data<float>()[e] = rows.values.data<float>()[e] - predicted.data<float>()[e];
  }
  return ratingSolve(job, rest, itemRows, RatingSide::users, mean, regularization);
}

SvdppRows svdppFit(Job& job, Csr users, Csr items, std::optional<Tensor> userRows, std::optional<Tensor> itemRows,
                   std::optional<Tensor> implicit, SvdppOptions o) {
  checkOptions(o);
  const Device device = deviceNamed(o.device.value_or("cpu"));
  checkBothWays(job, users, items);
  require(users.nnz() > 0, ErrorCode::value, "users: expected at least one rating");
  if (userRows) checkFactors(*userRows, "userRows", users.rows(), o.factors + 2);
  if (itemRows) checkFactors(*itemRows, "itemRows", items.rows(), o.factors + 2);
  if (implicit) checkFactors(*implicit, "implicit", items.rows(), o.factors);

  SvdppRows out;
  out.mean = static_cast<float>(meanRating(job, users));  // as files hold it
  const int64_t f = o.factors, stride = (f + 2 + 15) / 16 * 16;
  const Tensor p = trainingRows(job, userRows, users, f, stride, RatingSide::users, out.mean, o.initStd, o.seed);
  const Tensor q = trainingRows(job, itemRows, items, f, stride, RatingSide::items, out.mean, o.initStd, o.seed);
  const Tensor y = Tensor::host(DType::float32, {items.rows(), stride}, true);
  for (int64_t i = 0; implicit && i < items.rows(); ++i) {
    std::copy_n(implicit->data<float>() + i * f, f, y.data<float>() + i * stride);
  }
  const Csr centredUsers = centred(users, out.mean), ratings = copyTo(centredUsers, device);
  std::vector<Batch> batches = makeBatches(job, centredUsers.view(), o.seed);
  std::vector<PlacedBatch> placedBatches;
  size_t largest = 0;
  for (Batch& b : batches) {
    placedBatches.emplace_back(b, device);
    largest = std::max(largest, b.entries.size());
  }
  const Tensor z = empty<float>(device, {batchUsers, stride}), sums = empty<float>(device, {batchUsers, stride});
  const Tensor errors = empty<float>(device, {static_cast<int64_t>(largest)});
  std::vector<double> squares(batches.size() * batchUsers);  // of the users of each batch
  const Placed<float> placedP(p, device), placedQ(q, device), placedY(y, device);
  const Placed<double> placedSquares(squares, device);

  const auto finish = [&] {
    for (const Placed<float>* rows : {&placedP, &placedQ, &placedY}) rows->fetch();
    out.users = modelRows(job, p, f, RatingSide::users, out.mean);
    out.items = modelRows(job, q, f, RatingSide::items, out.mean);
    out.implicit = Tensor::host<float>({items.rows(), f});
    for (int64_t i = 0; i < items.rows(); ++i) {
      const float* from = y.data<float>() + i * stride;
      for (int64_t k = 0; k < f; ++k) {
        require(std::isfinite(from[k]), ErrorCode::value, "SVDpp: the fit has overflowed float32 at item row ", i,
                ": use a smaller learningRate or a larger regularization");
      }
      std::copy_n(from, f, out.implicit.data<float>() + i * f);
    }
  };
  const auto objective = [&] {
    double penalty = ratingPenalty(users, out.users, RatingSide::users, out.mean) +
                     ratingPenalty(items, out.items, RatingSide::items, out.mean);
    const int64_t* indptr = items.indptr.data<int64_t>();
    for (int64_t i = 0; i < items.rows(); ++i) {
      double norm = 0;
      for (int64_t k = 0; k < f; ++k) norm += std::pow(static_cast<double>(out.implicit.data<float>()[i * f + k]), 2);
      penalty += norm * static_cast<double>(indptr[i + 1] - indptr[i]);
    }
    return squaredError(job, users, svdppUsers(job, users, out.users, out.implicit), out.items) +
           o.regularization * penalty;
  };

  Progress progress{0, static_cast<double>(o.iterations), std::numeric_limits<double>::quiet_NaN()};
  job.progress(progress);
  std::vector<int32_t> order(batches.size());
  std::iota(order.begin(), order.end(), 0);
  for (int64_t epoch = 0; epoch < o.iterations; ++epoch) {
    fisherYates(order, Random(static_cast<uint64_t>(o.seed), orders + 1 + static_cast<uint64_t>(epoch)));
    const double rate = o.learningRate * std::pow(o.learningRateDecay, static_cast<double>(epoch));
    double sum = 0;
    for (const int32_t b : order) {
      const Batch& batch = batches[static_cast<size_t>(b)];
      const PlacedBatch& placed = placedBatches[static_cast<size_t>(b)];
      run(device, &Backend::svdpp, "svdpp", job.exec(),
          SvdppArgs{ratings.view(), placed.users.data(), static_cast<int64_t>(batch.users.size()), placed.starts.data(),
                    placed.entries.data(), placed.runs.data(), static_cast<int64_t>(batch.runs.size()) - 1,
                    placedP.data(), placedQ.data(), placedY.data(), f, stride, static_cast<float>(rate),
                    static_cast<float>(o.regularization), z.data<float>(), sums.data<float>(), errors.data<float>(),
                    placedSquares.data() + b * batchUsers});
      job.checkCancelled();
    }
    placedSquares.fetch();
    for (const int32_t b : order) {
      for (size_t at = 0; at < batches[static_cast<size_t>(b)].users.size(); ++at) {
        sum += squares[static_cast<size_t>(b * batchUsers) + at];
      }
    }
    require(std::isfinite(sum), ErrorCode::value, "SVDpp: the fit has diverged in epoch ", epoch + 1,
            ": use a smaller learningRate (it is ", o.learningRate, ") or a larger regularization");
    if (o.computeLoss) {
      finish();
      progress.loss = objective();
      out.loss.push_back(progress.loss);
    }
    progress.done = static_cast<double>(epoch + 1);
    job.progress(progress);
  }
  finish();
  return out;
}

}  // namespace ops
}  // namespace topknot
