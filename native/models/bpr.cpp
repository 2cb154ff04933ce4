#include "models/bpr.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/registry.h"
#include "core/random.h"
#include "models/bpr_schedule.h"
#include "ops/ops.h"

namespace topknot {
namespace {

void checkNumber(double value, double least, double most, const char* name) {
  require(std::isfinite(value) && value >= least && value <= most, ErrorCode::range, name,
          ": expected a finite number from ", least, " to ", most, " but received ", value);
}

void checkOptions(const BprOptions& o) {
  require(o.factors >= 1 && o.factors <= 4096, ErrorCode::range, "factors: expected 1 to 4096 but received ",
          o.factors);
  require(o.iterations >= 0 && o.iterations < (int64_t{1} << 31), ErrorCode::range,
          "iterations: expected 0 to 2^31 but received ", o.iterations);
  require(o.candidates >= 1 && o.candidates <= 1024, ErrorCode::range, "candidates: expected 1 to 1024 but received ",
          o.candidates);
  checkNumber(o.learningRate, 0, 1e6, "learningRate");
  checkNumber(o.regularization, 0, 1e6, "regularization");
  checkNumber(o.initStd, 0, 1e6, "initStd");
}

void checkUsers(Job& job, const Csr& users, const char* name) {
  ops::csrValidate(job, users);
  require(users.rows() > 0 && users.cols > 0, ErrorCode::shape, name,
          ": expected at least one row and one column but received [", users.rows(), ", ", users.cols, "]");
  require(users.nnz() <= std::numeric_limits<uint32_t>::max(), ErrorCode::shape, name,
          ": expected fewer than 2^32 entries but received ", users.nnz());
}

void checkFactors(const Tensor& t, const char* name, std::initializer_list<int64_t> shape) {
  expect(t, name, DType::float32, static_cast<int>(shape.size()));
  require(t.shape == Shape(shape), ErrorCode::shape, name, ": expected shape ", text(Shape(shape)), " but received ",
          text(t.shape));
}

/// Factor rows as the kernel takes them: [rows, stride], zeros beyond the factors.
Tensor padded(const Tensor& factors, int64_t stride) {
  const int64_t f = factors.cols();
  const Tensor out = Tensor::host<float>({factors.rows(), stride}, true);
  for (int64_t r = 0; r < factors.rows(); ++r) {
    std::copy_n(factors.data<float>() + r * f, f, out.data<float>() + r * stride);
  }
  return out;
}

Tensor trimmed(const Tensor& rows, int64_t f) {
  const Tensor out = Tensor::host<float>({rows.rows(), f});
  for (int64_t r = 0; r < rows.rows(); ++r) {
    std::copy_n(rows.data<float>() + r * rows.cols(), f, out.data<float>() + r * f);
  }
  return out;
}

/// Gives rows of zeros N(0, std²) in the first f places, keyed by (seed, first + row).
void startRows(Job& job, const Tensor& rows, int64_t f, double std, int64_t seed, uint64_t first) {
  parallelFor(rows.rows(), 256, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = rows.data<float>() + r * rows.cols();
      if (std::any_of(row, row + f, [](float x) { return x != 0; })) continue;
      Random random(static_cast<uint64_t>(seed), first + static_cast<uint64_t>(r));
      for (int64_t k = 0; k < f; ++k) row[k] = static_cast<float>(std * random.normal());
    }
  });
  job.checkCancelled();
}

/// Too large a step makes the factors grow without bound.
void requireBounded(Job& job, const Tensor& factors, const BprOptions& o) {
  parallelFor(factors.count(), 1 << 16, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      require(std::isfinite(factors.data<float>()[i]), ErrorCode::value, "learningRate: with ", o.learningRate,
              " and a regularization of ", o.regularization, " the factors grew beyond float32: use a smaller one");
    }
  });
  job.checkCancelled();
}

int64_t strideOf(int64_t factors) { return (factors + 15) / 16 * 16; }

/// See bprOwnBit().
std::vector<uint8_t> ownBitsOf(Job& job, const Csr& users) {
  const CsrView v = users.view();
  std::vector<uint8_t> bits(static_cast<size_t>(2 * users.nnz()), 0);
  parallelFor(v.rows, 1024, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t u = begin; u < end; ++u) {
      for (int64_t e = v.indptr[u]; e < v.indptr[u + 1]; ++e) {
        const uint64_t bit = bprOwnBit(v.indptr[u + 1] - v.indptr[u], v.indices[e]);
        bits[2 * v.indptr[u] + bit / 8] |= static_cast<uint8_t>(1u << bit % 8);
      }
    }
  });
  job.checkCancelled();
  return bits;
}

BprArgs argsOf(const Csr& users, const std::vector<uint8_t>& ownBits, const Tensor& userFactors,
               const Tensor& itemFactors, const std::optional<Tensor>& itemBiases, const BprOptions& o) {
  BprArgs args{};
  args.users = users.view();
  args.ownBits = ownBits.data();
  args.candidates = o.negativeSampling == BprSampling::hard ? static_cast<int32_t>(o.candidates) : 1;
  args.seed = static_cast<uint64_t>(o.seed);
  args.stride = itemFactors.cols();
  args.userFactors = userFactors.data<float>();
  args.itemFactors = itemFactors.data<float>();
  args.itemBiases = itemBiases ? itemBiases->data<float>() : nullptr;
  args.rate = static_cast<float>(o.learningRate);
  args.regularization = static_cast<float>(o.regularization);
  args.wantLoss = o.computeLoss;
  return args;
}

/// Runs some tasks side by side and adds up what came of them.
BprOutcome runTasks(Job& job, BprArgs args, const std::vector<BprTask>& tasks) {
  std::vector<BprOutcome> outcomes(tasks.size());
  args.tasks = tasks.data();
  args.taskCount = static_cast<int64_t>(tasks.size());
  args.outcomes = outcomes.data();
  run(backendOf({}), &Backend::bpr, "bpr", job.exec(), args);
  job.checkCancelled();
  BprOutcome sum{};
  for (const BprOutcome& o : outcomes) {
    sum.loss += o.loss;
    sum.samples += o.samples;
  }
  return sum;
}

/// One pass over all positives; the mean loss of its samples.
double epoch(Job& job, const BprArgs& args, const BprSchedule& schedule, const BprOptions& o) {
  const int64_t parts = schedule.parts();
  const bool popular = o.negativeSampling == BprSampling::popularity;
  BprOutcome sum{};
  std::vector<BprTask> tasks;
  for (int64_t round = 0; round < parts; ++round) {
    for (int64_t s = 0; s < parts; ++s) tasks.push_back(schedule.task(s, (s + round) % parts, popular, o.hogwild));
    if (o.hogwild && round + 1 < parts) continue;  // all rounds at once
    const BprOutcome part = runTasks(job, args, tasks);
    sum.loss += part.loss;
    sum.samples += part.samples;
    tasks.clear();
  }
  return sum.samples ? sum.loss / static_cast<double>(sum.samples) : 0;
}

}  // namespace

int64_t bprParts(int64_t users, int64_t items, int64_t positives, bool hogwild) {
  const int64_t byWork = static_cast<int64_t>(std::sqrt(static_cast<double>(positives) / 2048));
  const int64_t bySize = hogwild ? users : std::min(items / 512, users / 16);
  return std::clamp<int64_t>(std::min(byWork, bySize), 1, 64);
}

namespace ops {

BprFactors bprFit(Job& job, Csr users, std::optional<Tensor> userFactors, std::optional<Tensor> itemFactors,
                  std::optional<Tensor> itemBiases, BprOptions o) {
  checkOptions(o);
  checkUsers(job, users, "users");
  if (userFactors) checkFactors(*userFactors, "userFactors", {users.rows(), o.factors});
  if (itemFactors) checkFactors(*itemFactors, "itemFactors", {users.cols, o.factors});
  if (itemBiases) checkFactors(*itemBiases, "itemBiases", {users.cols});

  const int64_t f = o.factors, stride = strideOf(f);
  const double std = o.initStd / std::sqrt(static_cast<double>(f));
  constexpr uint64_t userRows = uint64_t{1} << 40;  // keys of users, beyond those of items
  const Tensor x = userFactors ? padded(*userFactors, stride) : Tensor::host<float>({users.rows(), stride}, true);
  const Tensor y = itemFactors ? padded(*itemFactors, stride) : Tensor::host<float>({users.cols, stride}, true);
  startRows(job, x, f, std, o.seed, userRows);
  startRows(job, y, f, std, o.seed, 0);
  const CsrView v = users.view();
  for (int64_t u = 0; u < v.rows; ++u) {
    if (v.indptr[u] == v.indptr[u + 1]) std::fill_n(x.data<float>() + u * stride, f, 0.0f);
  }
  BprFactors out;
  if (o.biases) {
    out.itemBiases = Tensor::host<float>({users.cols}, true);
    if (itemBiases) std::copy_n(itemBiases->data<float>(), users.cols, out.itemBiases->data<float>());
  }

  const std::vector<uint8_t> ownBits = ownBitsOf(job, users);
  BprArgs args = argsOf(users, ownBits, x, y, out.itemBiases, o);
  const int64_t parts = bprParts(v.rows, v.cols, users.nnz(), o.hogwild);
  BprSchedule schedule(v, parts, args.seed);
  args.positiveUsers = schedule.positiveUsers();
  args.positiveItems = schedule.positiveItems();
  args.pool = o.negativeSampling == BprSampling::popularity ? schedule.positiveItems() : schedule.items();

  Progress progress{0, static_cast<double>(o.iterations), std::numeric_limits<double>::quiet_NaN()};
  job.progress(progress);
  for (int64_t iteration = 0; iteration < o.iterations; ++iteration) {
    schedule.deal(job.exec(), iteration);
    job.checkCancelled();
    const double loss = epoch(job, args, schedule, o);
    if (o.computeLoss) {
      out.loss.push_back(loss);
      progress.loss = loss;
    }
    progress.done = static_cast<double>(iteration + 1);
    job.progress(progress);
  }
  out.userFactors = trimmed(x, f);
  out.itemFactors = trimmed(y, f);
  requireBounded(job, out.userFactors, o);
  requireBounded(job, out.itemFactors, o);
  return out;
}

Tensor bprFold(Job& job, Csr row, Tensor itemFactors, std::optional<Tensor> itemBiases, Csr users, BprOptions o) {
  expect(itemFactors, "itemFactors", DType::float32, 2);
  const int64_t f = o.factors = itemFactors.cols(), items = itemFactors.rows();
  checkOptions(o);
  checkUsers(job, row, "row");
  expectCsr(users, "users");
  require(row.rows() == 1 && row.cols == items && users.cols == items, ErrorCode::shape, "row: expected shape [1, ",
          items, "] but received [", row.rows(), ", ", row.cols, "]");
  if (itemBiases) checkFactors(*itemBiases, "itemBiases", {items});

  // All epochs as one task.
  const int64_t count = row.nnz(), total = count * o.iterations;
  const Tensor positiveUsers = Tensor::host<int32_t>({total}, true), positiveItems = Tensor::host<int32_t>({total});
  for (int64_t e = 0; e < o.iterations; ++e) {
    int32_t* part = positiveItems.data<int32_t>() + e * count;
    std::copy_n(row.indices.data<int32_t>(), count, part);
    shuffle(count, Random(static_cast<uint64_t>(o.seed), bprStream(BprPurpose::fold, e, 0)),
            [&](int64_t i, int64_t j) { std::swap(part[i], part[j]); });
  }
  std::vector<int32_t> all;
  const bool popular = o.negativeSampling == BprSampling::popularity;
  if (!popular) {
    all.resize(static_cast<size_t>(items));
    std::iota(all.begin(), all.end(), 0);
  }
  const int64_t stride = strideOf(f);
  const Tensor x = Tensor::host<float>({1, stride}, true), y = stride == f ? itemFactors : padded(itemFactors, stride);
  const std::vector<uint8_t> ownBits = ownBitsOf(job, row);
  BprArgs args = argsOf(row, ownBits, x, y, itemBiases, o);
  args.itemsFixed = true;
  args.positiveUsers = positiveUsers.data<int32_t>();
  args.positiveItems = positiveItems.data<int32_t>();
  args.pool = popular ? users.indices.data<int32_t>() : all.data();
  runTasks(job, args, {{0, total, 0, popular ? users.nnz() : items, bprStream(BprPurpose::fold, 0, 1)}});
  return trimmed(x, f);
}

}  // namespace ops
}  // namespace topknot
