#include "models/biased_mf.h"

#include <cmath>
#include <limits>

#include "backend/memory.h"
#include "backend/registry.h"
#include "models/factors.h"
#include "models/placed.h"
#include "models/rating_blocks.h"

namespace topknot {
namespace {

void checkOptions(const BiasedMfOptions& o) {
  require(o.factors >= 0 && o.factors <= 4096, ErrorCode::range, "factors: expected 0 to 4096 but received ",
          o.factors);
  require(o.iterations >= 1, ErrorCode::range, "iterations: expected 1 or more but received ", o.iterations);
  checkNumber(o.learningRate, 0, "learningRate");
  checkNumber(o.learningRateDecay, 0, "learningRateDecay");
  checkNumber(o.regularization, 0, "regularization");
  checkNumber(o.initStd, 0, "initStd");
}

/// The objective, with the rows of a model.
double objective(Job& job, const Csr& users, const Csr& items, const RatingRows& rows, double regularization) {
  return squaredError(job, users, rows.users, rows.items) +
         regularization * (ratingPenalty(users, rows.users, RatingSide::users, rows.mean) +
                           ratingPenalty(items, rows.items, RatingSide::items, rows.mean));
}

/// Ends an iteration: the loss, when it was asked for, and the progress.
void endIteration(Job& job, const Csr& users, const Csr& items, const BiasedMfOptions& o, RatingRows& rows,
                  Progress& progress, int64_t iteration) {
  if (o.computeLoss) {
    progress.loss = objective(job, users, items, rows, o.regularization);
    rows.loss.push_back(progress.loss);
  }
  progress.done = static_cast<double>(iteration + 1);
  job.progress(progress);
}

void descend(Job& job, Device device, const Csr& users, const Csr& items, const BiasedMfOptions& o, const Tensor& x,
             const Tensor& y, RatingRows& rows, Progress& progress) {
  RatingBlocks blocks(users, rows.mean, o.seed);
  std::vector<double> errors(static_cast<size_t>(blocks.strata * blocks.strata));
  const Placed<float> placedX(x, device), placedY(y, device);
  const Placed<RatingEntry> entries(blocks.entries, device);
  const Placed<int64_t> borders(blocks.borders, device);
  const Placed<int32_t> rounds(blocks.rounds, device);
  const Placed<double> placedErrors(errors, device);
  const auto finish = [&] {
    placedX.fetch();
    placedY.fetch();
    rows.users = modelRows(job, x, o.factors, RatingSide::users, rows.mean);
    rows.items = modelRows(job, y, o.factors, RatingSide::items, rows.mean);
  };
  for (int64_t epoch = 0; epoch < o.iterations; ++epoch) {
    blocks.shuffle(job, o.seed, epoch);
    const double rate = o.learningRate * std::pow(o.learningRateDecay, static_cast<double>(epoch));
    entries.send();
    rounds.send();
    run(device, &Backend::ratingSgd, "ratingSgd", job.exec(),
        RatingSgdArgs{entries.data(), borders.data(), rounds.data(), blocks.strata, placedX.data(), placedY.data(),
                      o.factors, x.cols(), static_cast<float>(rate), static_cast<float>(o.regularization),
                      placedErrors.data()});
    job.checkCancelled();
    placedErrors.fetch();
    double sum = 0;
    for (const double e : errors) sum += e;
    require(std::isfinite(sum), ErrorCode::value, "BiasedMF: the fit has diverged in epoch ", epoch + 1,
            ": use a smaller learningRate (it is ", o.learningRate, ") or a larger regularization");
    if (o.computeLoss) finish();
    endIteration(job, users, items, o, rows, progress, epoch);
  }
  finish();
}

void alternate(Job& job, Device device, const Csr& users, const Csr& items, const BiasedMfOptions& o, const Tensor& x,
               RatingRows& rows, Progress& progress) {
  const RatingSystems byUser(users, RatingSide::users, rows.mean, o.regularization, device);
  const RatingSystems byItem(items, RatingSide::items, rows.mean, o.regularization, device);
  Tensor userRows = copyTo(modelRows(job, x, o.factors, RatingSide::users, rows.mean), device), itemRows;
  const auto finish = [&] {
    rows.users = copyTo(userRows, Device{});
    rows.items = copyTo(itemRows, Device{});
  };
  for (int64_t sweep = 0; sweep < o.iterations; ++sweep) {
    itemRows = byItem.solve(job, userRows);
    progress.done += 0.5;
    job.progress(progress);
    userRows = byUser.solve(job, itemRows);
    if (o.computeLoss) finish();
    endIteration(job, users, items, o, rows, progress, sweep);
  }
  finish();
}

}  // namespace

namespace ops {

RatingRows biasedMfFit(Job& job, Csr users, Csr items, std::optional<Tensor> userRows, std::optional<Tensor> itemRows,
                       BiasedMfOptions o) {
  checkOptions(o);
  const Device device = deviceNamed(o.device.value_or("cpu"));
  checkBothWays(job, users, items);
  require(users.nnz() > 0, ErrorCode::value, "users: expected at least one rating");
  if (userRows) checkFactors(*userRows, "userRows", users.rows(), o.factors + 2);
  if (itemRows) checkFactors(*itemRows, "itemRows", items.rows(), o.factors + 2);

  RatingRows out;
  out.mean = static_cast<float>(meanRating(job, users));  // as files hold it
  const int64_t stride = (o.factors + 2 + 15) / 16 * 16;
  const auto start = [&](const std::optional<Tensor>& from, const Csr& rows, RatingSide side) {
    return trainingRows(job, from, rows, o.factors, stride, side, out.mean, o.initStd, o.seed);
  };
  const Tensor x = start(userRows, users, RatingSide::users), y = start(itemRows, items, RatingSide::items);
  Progress progress{0, static_cast<double>(o.iterations), std::numeric_limits<double>::quiet_NaN()};
  job.progress(progress);
  if (o.solver == BiasedMfSolver::sgd) {
    descend(job, device, users, items, o, x, y, out, progress);
  } else {
    alternate(job, device, users, items, o, x, out, progress);
  }
  return out;
}

}  // namespace ops
}  // namespace topknot
