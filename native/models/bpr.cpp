#include "models/bpr.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/registry.h"
#include "core/random.h"
#include "models/bpr_schedule.h"
#include "models/factor_rows.h"
#include "models/placed.h"

namespace topknot {
namespace {

BprArgs argsOf(const BprOptions& o, int64_t stride) {
  BprArgs args{};
  args.candidates = o.negativeSampling == BprSampling::hard ? static_cast<int32_t>(o.candidates) : 1;
  args.seed = static_cast<uint64_t>(o.seed);
  args.stride = stride;
  args.rate = static_cast<float>(o.learningRate);
  args.regularization = static_cast<float>(o.regularization);
  args.wantLoss = o.computeLoss;
  return args;
}

/// Runs the tasks of one round after those of another, those of a round side by side, and adds up what came of them.
BprOutcome runRounds(Job& job, Device device, BprArgs args, std::vector<BprTask>& tasks, int64_t perRound) {
  std::vector<BprOutcome> outcomes(tasks.size());
  const Placed<BprTask> placedTasks(tasks, device);
  const Placed<BprOutcome> placedOutcomes(outcomes, device);
  const int64_t count = static_cast<int64_t>(tasks.size());
  args.taskCount = perRound;
  for (int64_t first = 0; first < count; first += perRound) {
    args.tasks = placedTasks.data() + first;
    args.outcomes = placedOutcomes.data() + first;
    run(device, &Backend::bpr, "bpr", job.exec(), args);
    job.checkCancelled();
  }
  placedOutcomes.fetch();
  BprOutcome sum{};
  for (int64_t first = 0; first < count; first += perRound) {
    double loss = 0;
    for (int64_t t = first; t < first + perRound; ++t) {
      loss += outcomes[static_cast<size_t>(t)].loss;
      sum.samples += outcomes[static_cast<size_t>(t)].samples;
    }
    sum.loss += loss;
  }
  return sum;
}

/// One pass over all positives; the mean loss of its samples.
double epoch(Job& job, Device device, const BprArgs& args, const BprSchedule& schedule, const BprOptions& o) {
  const int64_t parts = schedule.parts();
  const bool popular = o.negativeSampling == BprSampling::popularity;
  std::vector<BprTask> tasks;
  for (int64_t round = 0; round < parts; ++round) {
    for (int64_t s = 0; s < parts; ++s) tasks.push_back(schedule.task(s, (s + round) % parts, popular, o.hogwild));
  }
  const BprOutcome sum = runRounds(job, device, args, tasks, o.hogwild ? parts * parts : parts);
  return sum.samples ? sum.loss / static_cast<double>(sum.samples) : 0;
}

}  // namespace

void checkOptions(const BprOptions& o) {
  require(o.factors >= 1 && o.factors <= 4096, ErrorCode::range, "factors: expected 1 to 4096 but received ",
          o.factors);
  require(o.iterations >= 0 && o.iterations < (int64_t{1} << 31), ErrorCode::range,
          "iterations: expected 0 to 2^31 but received ", o.iterations);
  require(o.candidates >= 1 && o.candidates <= 1024, ErrorCode::range, "candidates: expected 1 to 1024 but received ",
          o.candidates);
  expectNumber(o.learningRate, 0, 1e6, "learningRate");
  expectNumber(o.regularization, 0, 1e6, "regularization");
  expectNumber(o.initStd, 0, 1e6, "initStd");
}

int64_t bprParts(int64_t users, int64_t items, int64_t positives, bool hogwild) {
  const int64_t byWork = static_cast<int64_t>(std::sqrt(static_cast<double>(positives) / 2048));
  const int64_t bySize = hogwild ? users : std::min(items / 512, users / 16);
  return std::clamp<int64_t>(std::min(byWork, bySize), 1, 64);
}

namespace ops {

BprFactors bprFit(Job& job, Csr users, std::optional<Tensor> userFactors, std::optional<Tensor> itemFactors,
                  std::optional<Tensor> itemBiases, BprOptions o) {
  checkOptions(o);
  const Device device = deviceNamed(o.device.value_or("cpu"));
  expectInteractions(job, users, "users");
  if (userFactors) expectFloats(*userFactors, "userFactors", {users.rows(), o.factors});
  if (itemFactors) expectFloats(*itemFactors, "itemFactors", {users.cols, o.factors});
  if (itemBiases) expectFloats(*itemBiases, "itemBiases", {users.cols});

  const int64_t f = o.factors, stride = strideOf(f);
  const double std = o.initStd / std::sqrt(static_cast<double>(f));
  const Tensor x = userFactors ? paddedRows(*userFactors) : Tensor::host<float>({users.rows(), stride}, true);
  const Tensor y = itemFactors ? paddedRows(*itemFactors) : Tensor::host<float>({users.cols, stride}, true);
  startRows(job, x, f, std, o.seed, userRowKeys);
  startRows(job, y, f, std, o.seed, 0);
  clearEmptyRows(users, x);
  BprFactors out;
  if (o.biases) {
    out.itemBiases = Tensor::host<float>({users.cols}, true);
    if (itemBiases) std::copy_n(itemBiases->data<float>(), users.cols, out.itemBiases->data<float>());
  }

  BprArgs args = argsOf(o, stride);
  const int64_t parts = bprParts(users.rows(), users.cols, users.nnz(), o.hogwild);
  BprSchedule schedule(users.view(), parts, args.seed);
  std::vector<uint8_t> ownBits = ownItemBits(job, users);
  const Csr placedUsers = copyTo(users, device);
  const Placed<uint8_t> placedBits(ownBits, device);
  const Placed<float> placedX(x, device), placedY(y, device);
  std::optional<Placed<float>> placedBiases;
  if (o.biases) placedBiases.emplace(*out.itemBiases, device);
  const Placed<int32_t> positiveUsers(schedule.positiveUsers(), device);
  const Placed<int32_t> positiveItems(schedule.positiveItems(), device), items(schedule.items(), device);
  args.users = {placedUsers.view(), placedBits.data()};
  args.userFactors = placedX.data();
  args.itemFactors = placedY.data();
  args.itemBiases = o.biases ? placedBiases->data() : nullptr;
  args.positiveUsers = positiveUsers.data();
  args.positiveItems = positiveItems.data();
  args.pool = o.negativeSampling == BprSampling::popularity ? positiveItems.data() : items.data();

  Progress progress{0, static_cast<double>(o.iterations), std::numeric_limits<double>::quiet_NaN()};
  job.progress(progress);
  for (int64_t iteration = 0; iteration < o.iterations; ++iteration) {
    schedule.deal(job.exec(), iteration);
    job.checkCancelled();
    for (const Placed<int32_t>* dealt : {&positiveUsers, &positiveItems, &items}) dealt->send();
    const double loss = epoch(job, device, args, schedule, o);
    if (o.computeLoss) {
      out.loss.push_back(loss);
      progress.loss = loss;
    }
    progress.done = static_cast<double>(iteration + 1);
    job.progress(progress);
  }
  placedX.fetch();
  placedY.fetch();
  if (placedBiases) placedBiases->fetch();
  out.userFactors = trimmedRows(x, f);
  out.itemFactors = trimmedRows(y, f);
  expectBounded(job, out.userFactors, o.learningRate, o.regularization);
  expectBounded(job, out.itemFactors, o.learningRate, o.regularization);
  return out;
}

Tensor bprFold(Job& job, Csr rows, Tensor itemFactors, std::optional<Tensor> itemBiases, Csr users, BprOptions o) {
  expect(itemFactors, "itemFactors", DType::float32, 2);
  const int64_t f = o.factors = itemFactors.cols(), items = itemFactors.rows();
  checkOptions(o);
  expectInteractions(job, rows, "rows");
  expectCsr(users, "users");
  require(rows.cols == items && users.cols == items, ErrorCode::shape, "rows: expected ", items,
          " columns, one for each item, but received ", rows.cols);
  if (itemBiases) expectFloats(*itemBiases, "itemBiases", {items});
  require(users.nnz() > 0, ErrorCode::value, "users: expected at least one interaction");

  std::vector<int32_t> all;
  const bool popular = o.negativeSampling == BprSampling::popularity;
  if (!popular) {
    all.resize(static_cast<size_t>(items));
    std::iota(all.begin(), all.end(), 0);
  }
  const int64_t stride = strideOf(f), places = popular ? users.nnz() : items;
  const Tensor x = Tensor::host<float>({rows.rows(), stride}, true);
  const Tensor y = stride == f ? itemFactors : paddedRows(itemFactors);
  const std::vector<uint8_t> ownBits = ownItemBits(job, rows);
  BprArgs args = argsOf(o, stride);
  args.users = {rows.view(), ownBits.data()};
  args.userFactors = x.data<float>();
  args.itemFactors = y.data<float>();
  args.itemBiases = itemBiases ? itemBiases->data<float>() : nullptr;
  args.itemsFixed = true;
  args.pool = popular ? users.indices.data<int32_t>() : all.data();

  // All epochs of a user are one task; as many users at a time as keep the lists of positives short.
  constexpr int64_t mostPositives = int64_t{1} << 22;
  const int64_t* indptr = rows.indptr.data<int64_t>();
  for (int64_t first = 0, last = 0; first < rows.rows(); first = last) {
    last = first + 1;
    while (last < rows.rows() && (indptr[last + 1] - indptr[first]) * o.iterations <= mostPositives) ++last;
    std::vector<int32_t> positiveUsers, positiveItems;
    std::vector<BprTask> tasks;
    for (int64_t u = first; u < last; ++u) {
      const int64_t begin = static_cast<int64_t>(positiveItems.size());
      for (int64_t epoch = 0; epoch < o.iterations; ++epoch) {
        for (const int64_t e : bprFoldOrder(indptr[u + 1] - indptr[u], epoch, args.seed)) {
          positiveItems.push_back(rows.indices.data<int32_t>()[indptr[u] + e]);
        }
      }
      positiveUsers.resize(positiveItems.size(), static_cast<int32_t>(u));
      tasks.push_back({begin, static_cast<int64_t>(positiveItems.size()), 0, places, bprFoldDraws});
    }
    args.positiveUsers = positiveUsers.data();
    args.positiveItems = positiveItems.data();
    runRounds(job, Device{}, args, tasks, last - first);
  }
  return trimmedRows(x, f);
}

}  // namespace ops
}  // namespace topknot
