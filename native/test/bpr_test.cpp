// BPR: its schedule, its draws, its steps on every instruction set and thread count. The whole of a fit against float64
// is in test/models/bpr.test.ts.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "backend/negatives.h"
#include "backend/registry.h"
#include "models/bpr.h"
#include "models/bpr_schedule.h"
#include "models/factor_rows.h"
#include "test/check.h"

using namespace topknot;

namespace {

/// User u has about `mean` items, the low ones more often; every seventh user has none.
Csr randomUsers(int64_t users, int64_t items, int64_t mean, uint64_t seed) {
  std::vector<std::set<int32_t>> rows(static_cast<size_t>(users));
  int64_t nnz = 0;
  for (int64_t u = 0; u < users; ++u) {
    Random random(seed, static_cast<uint64_t>(u));
    const int64_t count = u % 7 == 6 ? 0 : 1 + static_cast<int64_t>(random.below(static_cast<uint64_t>(2 * mean)));
    for (int64_t n = 0; n < count; ++n) {
      const double x = random.uniform();
      rows[u].insert(static_cast<int32_t>(x * std::sqrt(x) * static_cast<double>(items)));
    }
    nnz += static_cast<int64_t>(rows[u].size());
  }
  Csr m{Tensor::host<int64_t>({users + 1}, true), Tensor::host<int32_t>({nnz}), Tensor::host<float>({nnz}), items};
  int64_t at = 0;
  for (int64_t u = 0; u < users; ++u) {
    for (const int32_t item : rows[u]) {
      m.indices.data<int32_t>()[at] = item;
      m.values.data<float>()[at++] = 1;
    }
    m.indptr.data<int64_t>()[u + 1] = at;
  }
  return m;
}

/// Σ (seen - expected)² / expected in standard deviations above its mean.
double chiSquare(const std::vector<double>& seen, const std::vector<double>& expected) {
  double sum = 0, freedom = -1;
  for (size_t i = 0; i < seen.size(); ++i) {
    if (expected[i] == 0) {
      CHECK(seen[i] == 0);
      continue;
    }
    sum += (seen[i] - expected[i]) * (seen[i] - expected[i]) / expected[i];
    ++freedom;
  }
  return (sum - freedom) / std::sqrt(2 * freedom);
}

template <typename F>
void everyIsa(F&& f) {
  for (const Backend* b : cpuBackends()) {
    useIsa(b->isa);
    f();
  }
  useIsa(cpuBackends().front()->isa);
}

}  // namespace

TEST(anEpochTakesUpEveryPositiveOnce) {
  const Csr users = randomUsers(300, 2000, 40, 1);
  const CsrView v = users.view();
  for (const int64_t parts : {1, 2, 5}) {
    BprSchedule schedule(v, parts, 3);
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      schedule.deal(Exec{}, epoch);
      std::set<std::pair<int32_t, int32_t>> all;
      std::set<uint64_t> streams;
      for (int64_t round = 0; round < parts; ++round) {
        std::vector<int64_t> userTask(300, -1), itemTask(2000, -1);
        for (int64_t s = 0; s < parts; ++s) {
          const BprTask task = schedule.task(s, (s + round) % parts, false, false);
          const BprTask popular = schedule.task(s, (s + round) % parts, true, false);
          streams.insert(task.stream);
          const auto claim = [&](std::vector<int64_t>& owner, int32_t row) {
            CHECK(owner[row] == -1 || owner[row] == s);  // no two tasks of a round share a row
            owner[row] = s;
          };
          for (int64_t p = task.begin; p < task.end; ++p) {
            all.insert({schedule.positiveUsers()[p], schedule.positiveItems()[p]});
            claim(userTask, schedule.positiveUsers()[p]);
            claim(itemTask, schedule.positiveItems()[p]);
          }
          for (int64_t n = task.poolBegin; n < task.poolEnd; ++n) claim(itemTask, schedule.items()[n]);
          for (int64_t n = popular.poolBegin; n < popular.poolEnd; ++n) claim(itemTask, schedule.positiveItems()[n]);
        }
      }
      CHECK(static_cast<int64_t>(all.size()) == users.nnz());
      CHECK(static_cast<int64_t>(streams.size()) == parts * parts);
      for (const auto& [u, i] : all) CHECK(std::binary_search(v.indices + v.indptr[u], v.indices + v.indptr[u + 1], i));
    }
  }
}

TEST(drawsAreUniformOverWhatIsNotOwn) {
  const Csr users = randomUsers(20, 60, 15, 2);
  Job job;
  const std::vector<uint8_t> bits = ownItemBits(job, users);
  const OwnItemsView all{users.view(), bits.data()};
  const CsrView v = users.view();
  for (int32_t u = 0; u < 20; ++u) {
    constexpr int draws = 60000;
    std::vector<double> seen(60, 0), expected(60, 0);
    Random random(5, static_cast<uint64_t>(u));
    const OwnItems own(all, u);
    for (int n = 0; n < draws; ++n) {
      const int32_t item = drawNegative(own, nullptr, 60, random);
      CHECK(item >= 0 && item < 60);
      ++seen[item];
    }
    const int64_t free = 60 - (v.indptr[u + 1] - v.indptr[u]);
    for (int32_t i = 0; i < 60; ++i) {
      const bool isOwn = std::binary_search(v.indices + v.indptr[u], v.indices + v.indptr[u + 1], i);
      CHECK(own.has(i) == isOwn);
      expected[i] = isOwn ? 0 : static_cast<double>(draws) / static_cast<double>(free);
    }
    CHECK(std::abs(chiSquare(seen, expected)) < 4);
  }
}

TEST(popularDrawsFollowTheCounts) {
  const Csr users = randomUsers(200, 50, 10, 4);
  Job job;
  const std::vector<uint8_t> bits = ownItemBits(job, users);
  const OwnItemsView all{users.view(), bits.data()};
  BprSchedule schedule(users.view(), 1, 9);
  schedule.deal(Exec{}, 0);
  const BprTask task = schedule.task(0, 0, true, false);
  CHECK(task.poolEnd - task.poolBegin == users.nnz());
  constexpr int32_t nobody = 6;  // a user without items
  constexpr int draws = 200000;
  std::vector<double> seen(50, 0), expected(50, 0);
  Random random(5, 0);
  const OwnItems own(all, nobody);
  for (int n = 0; n < draws; ++n) ++seen[drawNegative(own, schedule.positiveItems().data(), users.nnz(), random)];
  for (const int32_t item : users.indices.span<int32_t>()) {
    expected[item] += static_cast<double>(draws) / static_cast<double>(users.nnz());
  }
  CHECK(std::abs(chiSquare(seen, expected)) < 4);
}

TEST(drawsFromBlocksAreUniformOverManyEpochs) {
  const Csr users = randomUsers(100, 80, 4, 6);
  Job job;
  const std::vector<uint8_t> bits = ownItemBits(job, users);
  const OwnItemsView all{users.view(), bits.data()};
  BprSchedule schedule(users.view(), 4, 9);
  std::vector<double> seen(80, 0), expected(80, 0);
  for (int64_t epoch = 0; epoch < 400; ++epoch) {
    schedule.deal(Exec{}, epoch);
    for (int64_t t = 0; t < 16; ++t) {
      const BprTask task = schedule.task(t / 4, t % 4, false, false);
      Random random(9, task.stream);
      for (int64_t p = task.begin; p < task.end; ++p) {
        const int32_t u = schedule.positiveUsers()[p];
        const OwnItems own(all, u);
        ++seen[drawNegative(own, schedule.items().data() + task.poolBegin, task.poolEnd - task.poolBegin, random)];
        // What is expected of a draw from this block; over the epochs it must even out over all that is not own.
        const CsrView v = users.view();
        const double chance = 1.0 / static_cast<double>(80 - (v.indptr[u + 1] - v.indptr[u]));
        for (int32_t i = 0; i < 80; ++i) expected[i] += own.has(i) ? 0 : chance;
      }
    }
  }
  for (size_t i = 0; i < 80; ++i) CHECK(std::abs(seen[i] / expected[i] - 1) < 0.15);
}

TEST(whoHasEverythingIsPassedOver) {
  Csr users{Tensor::host<int64_t>({2}, true), Tensor::host<int32_t>({30}), Tensor::host<float>({30}, true), 30};
  users.indptr.data<int64_t>()[1] = 30;
  for (int32_t i = 0; i < 30; ++i) users.indices.data<int32_t>()[i] = i;
  BprOptions o;
  o.factors = 4;
  o.iterations = 3;
  Job job;
  const BprFactors three = ops::bprFit(job, users, {}, {}, {}, o);
  o.iterations = 0;
  const BprFactors none = ops::bprFit(job, users, {}, {}, {}, o);
  CHECK(!std::memcmp(three.itemFactors.data<float>(), none.itemFactors.data<float>(), none.itemFactors.bytes()));
  CHECK(!std::memcmp(three.userFactors.data<float>(), none.userFactors.data<float>(), none.userFactors.bytes()));
}

TEST(instructionSetsAgreeAndThreadsDoNotMatter) {
  const Csr users = randomUsers(400, 1600, 60, 8);
  CHECK(bprParts(400, 1600, users.nnz(), false) == 3);
  for (const auto sampling : {BprSampling::uniform, BprSampling::popularity, BprSampling::hard}) {
    for (const int64_t factors : {3, 16, 40}) {
      BprOptions o;
      o.factors = factors;
      o.iterations = 2;
      o.negativeSampling = sampling;
      o.candidates = 3;
      o.biases = factors != 16;
      o.computeLoss = true;
      o.learningRate = 0.2;
      std::vector<BprFactors> all;
      everyIsa([&] {
        std::vector<BprFactors> models;
        for (const int threads : {1, 2, 4}) {
          setThreadCount(threads);
          Job job;
          models.push_back(ops::bprFit(job, users, {}, {}, {}, o));
        }
        for (const BprFactors& m : models) {
          const auto same = [](const Tensor& a, const Tensor& b) {
            return !std::memcmp(a.data<float>(), b.data<float>(), a.bytes());
          };
          CHECK(same(m.userFactors, models[0].userFactors) && same(m.itemFactors, models[0].itemFactors));
          CHECK(!o.biases || same(*m.itemBiases, *models[0].itemBiases));
          CHECK(m.loss == models[0].loss);
        }
        all.push_back(models[0]);
      });
      for (const BprFactors& m : all) {
        CHECK(std::abs(m.loss[1] - all[0].loss[1]) < 1e-5);
        for (int64_t i = 0; i < m.itemFactors.count(); ++i) {
          CHECK(std::abs(m.itemFactors.data<float>()[i] - all[0].itemFactors.data<float>()[i]) < 1e-4f);
        }
      }
    }
  }
}

TEST(foldInMovesTheUserAlone) {
  const Csr users = randomUsers(200, 300, 10, 3);
  BprOptions o;
  o.factors = 10;
  o.iterations = 30;
  Job job;
  const BprFactors model = ops::bprFit(job, users, {}, {}, {}, o);
  const Tensor items = Tensor::host<float>(model.itemFactors.shape);
  std::copy_n(model.itemFactors.data<float>(), items.count(), items.data<float>());
  Csr row{Tensor::host<int64_t>({2}, true), Tensor::host<int32_t>({3}), Tensor::host<float>({3}, true), 300};
  row.indptr.data<int64_t>()[1] = 3;
  for (int32_t i = 0; i < 3; ++i) row.indices.data<int32_t>()[i] = 20 * i + 1;
  for (const auto sampling : {BprSampling::uniform, BprSampling::popularity, BprSampling::hard}) {
    o.negativeSampling = sampling;
    everyIsa([&] {
      const Tensor x = ops::bprFold(job, row, model.itemFactors, {}, users, o);
      CHECK(!std::memcmp(items.data<float>(), model.itemFactors.data<float>(), items.bytes()));
      // Own items stand above the average item.
      double own = 0, all = 0;
      for (int64_t i = 0; i < 300; ++i) {
        double score = 0;
        for (int64_t k = 0; k < 10; ++k) {
          score += static_cast<double>(x.data<float>()[k]) * static_cast<double>(items.data<float>()[i * 10 + k]);
        }
        all += score / 300;
        if (i == 1 || i == 21 || i == 41) own += score / 3;
      }
      CHECK(own > all);
    });
  }
}

TEST(badArguments) {
  Job job;
  const Csr users = randomUsers(30, 40, 5, 1);
  BprOptions o;
  o.factors = 0;
  CHECK_THROWS(ops::bprFit(job, users, {}, {}, {}, o), range);
  o.factors = 4;
  o.candidates = 0;
  CHECK_THROWS(ops::bprFit(job, users, {}, {}, {}, o), range);
  o.candidates = 8;
  CHECK_THROWS(ops::bprFit(job, users, Tensor::host<float>({30, 5}), {}, {}, o), shape);
  CHECK_THROWS(ops::bprFit(job, users, {}, Tensor::host<float>({30, 4}), {}, o), shape);
  CHECK_THROWS(ops::bprFit(job, users, {}, {}, Tensor::host<float>({30}), o), shape);
  o.learningRate = 1e5;
  o.regularization = 10;
  CHECK_THROWS(ops::bprFit(job, users, {}, {}, {}, o), value);
  Csr bad = randomUsers(30, 40, 5, 1);
  bad.indices.data<int32_t>()[2] = 40;
  CHECK_THROWS(ops::bprFit(job, bad, {}, {}, {}, BprOptions{}), range);
  job.cancel();
  CHECK_THROWS(ops::bprFit(job, users, {}, {}, {}, BprOptions{}), aborted);
}

TEST_MAIN()
