// The CUDA kernels of models that learn by gradients under the SIMT emulator, and on the GPUs of this machine if there
// are any, against the CPU.
#include <cstdlib>
#include <numeric>

#include "core/random.h"
#include "models/bpr.h"
#include "models/bpr_schedule.h"
#include "models/factor_rows.h"
#include "test/emulated.h"
#include "test/placed.h"

using namespace topknot;
using topknot::test::alignedCpu;
using topknot::test::emulate;
using topknot::test::near;
using topknot::test::Placed;

namespace {

/// User u has u % 11 items and more, low ones rather than high ones; user 0 has all but two, so that most of what is
/// drawn for them is rejected; user 3 has all.
struct Problem {
  int64_t users, items, stride;
  std::vector<int64_t> indptr{0};
  std::vector<int32_t> indices;
  std::vector<float> values, userFactors, itemFactors, itemBiases;
  std::vector<uint8_t> bits;

  Problem(int64_t users, int64_t items, int64_t factors) : users(users), items(items), stride(strideOf(factors)) {
    for (int64_t u = 0; u < users; ++u) {
      Random random(7, static_cast<uint64_t>(u));
      for (int64_t i = 0; i < items; ++i) {
        const double chance = static_cast<double>(u % 11) / static_cast<double>(6 + i);
        if (u != 3 && (u == 0 ? i % 40 == 5 : random.uniform() >= chance)) continue;
        indices.push_back(static_cast<int32_t>(i));
        values.push_back(static_cast<float>(1 + random.below(3)));
      }
      indptr.push_back(static_cast<int64_t>(indices.size()));
    }
    bits.assign(2 * indices.size(), 0);
    for (int64_t u = 0; u < users; ++u) {
      for (int64_t e = indptr[u]; e < indptr[u + 1]; ++e) {
        const uint64_t bit = ownItemBit(indptr[u + 1] - indptr[u], indices[e]);
        bits[2 * indptr[u] + bit / 8] |= static_cast<uint8_t>(1u << bit % 8);
      }
    }
    userFactors = rows(users, factors, 1);
    itemFactors = rows(items, factors, 2);
    itemBiases = normalBiases(items);
  }
  static std::vector<float> rows(int64_t count, int64_t factors, uint64_t seed) {
    const int64_t stride = strideOf(factors);
    std::vector<float> out(static_cast<size_t>(count * stride), 0);
    Random random(seed, 0);
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t k = 0; k < factors; ++k) out[r * stride + k] = 0.4f * static_cast<float>(random.normal());
    }
    return out;
  }
  static std::vector<float> normalBiases(int64_t count) {
    std::vector<float> out = rows(1, count, 3);
    out.resize(static_cast<size_t>(count));
    return out;
  }
  CsrView csr() const { return {indptr.data(), indices.data(), values.data(), users, items}; }
  OwnItemsView own(Placed& memory) const {
    return {{memory.place(indptr), memory.place(indices), memory.place(values), users, items}, memory.place(bits)};
  }
};

struct BprCase {
  int64_t parts = 1;
  int32_t candidates = 1;
  bool popular = false, biases = false, itemsFixed = false, wantLoss = true;
};

struct BprResult {
  std::vector<float> users, items, biases;
  std::vector<double> losses;
  std::vector<int64_t> samples;
  bool operator==(const BprResult&) const = default;
};

/// One epoch, in the rounds of a fit.
BprResult runBpr(const Backend& backend, const Exec& exec, const Problem& p, const BprCase& c) {
  BprSchedule schedule(p.csr(), c.parts, 5);
  schedule.deal(Exec{}, 1);
  const auto copy = [](std::span<const int32_t> data) { return std::vector<int32_t>(data.begin(), data.end()); };
  const std::vector<int32_t> positiveUsers = copy(schedule.positiveUsers());
  const std::vector<int32_t> positiveItems = copy(schedule.positiveItems());
  const std::vector<int32_t> items = copy(schedule.items());
  BprResult r{p.userFactors, p.itemFactors, p.itemBiases, {}, {}};
  Placed memory(backend, exec);
  BprArgs args{};
  args.users = p.own(memory);
  args.positiveUsers = memory.place(positiveUsers);
  args.positiveItems = memory.place(positiveItems);
  args.pool = c.popular ? args.positiveItems : memory.place(items);
  args.candidates = c.candidates;
  args.seed = 5;
  args.stride = p.stride;
  args.userFactors = memory.place(r.users);
  args.itemFactors = memory.place(r.items);
  args.itemBiases = c.biases ? memory.place(r.biases) : nullptr;
  args.rate = 0.1f;
  args.regularization = 0.02f;
  args.itemsFixed = c.itemsFixed;
  args.wantLoss = c.wantLoss;
  for (int64_t round = 0; round < c.parts; ++round) {
    std::vector<BprTask> tasks;
    for (int64_t s = 0; s < c.parts; ++s) tasks.push_back(schedule.task(s, (s + round) % c.parts, c.popular, false));
    std::vector<BprOutcome> outcomes(tasks.size());
    args.tasks = memory.place(tasks);
    args.taskCount = c.parts;
    args.outcomes = memory.place(outcomes);
    check(backend.bpr(exec, args));
    memory.fetch(outcomes, args.outcomes);
    for (const BprOutcome& o : outcomes) {
      r.losses.push_back(o.loss);
      r.samples.push_back(o.samples);
    }
  }
  memory.fetch(r.users, args.userFactors);
  memory.fetch(r.items, args.itemFactors);
  if (c.biases) memory.fetch(r.biases, args.itemBiases);
  return r;
}

bool nearBpr(const BprResult& got, const BprResult& exact) {
  bool ok = got.samples == exact.samples;  // the draws are the same
  for (size_t t = 0; t < got.losses.size(); ++t) ok = ok && std::abs(got.losses[t] / exact.losses[t] - 1) < 1e-5;
  return ok && near(got.users, exact.users, 2e-5f) && near(got.items, exact.items, 2e-5f) &&
         near(got.biases, exact.biases, 2e-5f);
}

struct LogisticResult {
  std::vector<float> factors, biases, squaredFactors, squaredBiases;
  bool operator==(const LogisticResult&) const = default;
};

/// Two steps of every user, so that the second one finds squares of gradients.
LogisticResult runLogistic(const Backend& backend, const Exec& exec, const Problem& p, int64_t negatives) {
  const std::vector<float> userBiases = Problem::normalBiases(p.users);
  LogisticResult r{p.userFactors, userBiases, std::vector<float>(p.userFactors.size(), 0),
                   std::vector<float>(userBiases.size(), 0)};
  Placed memory(backend, exec);
  LogisticMfArgs args{.own = p.own(memory),
                      .stride = p.stride,
                      .otherFactors = memory.place(p.itemFactors),
                      .otherBiases = memory.place(p.itemBiases),
                      .factors = memory.place(r.factors),
                      .biases = memory.place(r.biases),
                      .squaredFactors = memory.place(r.squaredFactors),
                      .squaredBiases = memory.place(r.squaredBiases),
                      .negatives = negatives,
                      .seed = 9,
                      .stream = uint64_t{1} << 60,
                      .alpha = 0.7f,
                      .rate = 0.2f,
                      .regularization = 0.5f};
  for (int step = 0; step < 2; ++step, args.stream += uint64_t{1} << 36) check(backend.logisticMf(exec, args));
  memory.fetch(r.factors, args.factors);
  memory.fetch(r.biases, args.biases);
  memory.fetch(r.squaredFactors, args.squaredFactors);
  memory.fetch(r.squaredBiases, args.squaredBiases);
  return r;
}

bool nearLogistic(const LogisticResult& got, const LogisticResult& exact, float tolerance) {
  return near(got.factors, exact.factors, tolerance) && near(got.biases, exact.biases, tolerance) &&
         near(got.squaredFactors, exact.squaredFactors, tolerance) &&
         near(got.squaredBiases, exact.squaredBiases, tolerance);
}

}  // namespace

TEST(logisticSteps) {
  for (const int64_t factors : {5, 40, 100, 200}) {
    const Problem p(12, 50, factors);
    for (const int64_t negatives : {0, 3}) {
      const auto run = [&](const Backend& gpu, const Exec& exec) { return runLogistic(gpu, exec, p, negatives); };
      CHECK(nearLogistic(emulate(run), run(alignedCpu(), {}), 1e-4f));
    }
  }
  const Problem many(4, 110, 16);  // more negatives than a batch has
  const auto run = [&](const Backend& gpu, const Exec& exec) { return runLogistic(gpu, exec, many, 5); };
  CHECK(nearLogistic(emulate(run), run(alignedCpu(), {}), 1e-4f));
}

TEST(bprEpochs) {
  for (const int64_t factors : {5, 16, 40, 100, 200}) {
    const Problem p(30, 60, factors);
    const auto run = [&](const Backend& gpu, const Exec& exec) { return runBpr(gpu, exec, p, {.parts = 3}); };
    const BprResult exact = run(alignedCpu(), {});
    CHECK(nearBpr(emulate(run), exact));
    // Whoever has all items is passed over.
    CHECK(std::accumulate(exact.samples.begin(), exact.samples.end(), int64_t{0}) <
          static_cast<int64_t>(p.indices.size()));
  }
}

TEST(bprSampling) {
  const Problem p(12, 40, 20);
  for (const BprCase& c : {BprCase{.parts = 2, .popular = true, .biases = true}, BprCase{.candidates = 3},
                           BprCase{.candidates = 40, .biases = true}, BprCase{.itemsFixed = true, .wantLoss = false},
                           BprCase{.candidates = 4, .popular = true, .biases = true, .itemsFixed = true}}) {
    const auto run = [&](const Backend& gpu, const Exec& exec) { return runBpr(gpu, exec, p, c); };
    const BprResult exact = run(alignedCpu(), {}), got = emulate(run);
    CHECK(c.wantLoss ? nearBpr(got, exact) : got.samples == exact.samples && near(got.users, exact.users, 2e-5f));
    CHECK(got.users != p.userFactors && (got.items != p.itemFactors) == !c.itemsFixed);
  }
}

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Exec exec{.device = all[i].device.index};
    const Backend& gpu = backendOf(all[i].device);
    const Problem p(600, 900, 64);
    const BprCase c{.parts = 4, .biases = true};
    CHECK(runBpr(gpu, exec, p, c).samples == runBpr(alignedCpu(), {}, p, c).samples);
    CHECK(near(runBpr(gpu, exec, p, c).items, runBpr(alignedCpu(), {}, p, c).items, 1e-3f));
    CHECK(nearLogistic(runLogistic(gpu, exec, p, 5), runLogistic(alignedCpu(), {}, p, 5), 1e-3f));
  }
}

TEST_MAIN()
