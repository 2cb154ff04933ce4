// Logistic MF on every instruction set and thread count. Its sweeps against float64: test/models/logistic-mf.test.ts.
#include <cmath>
#include <cstring>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;

namespace {

/// User u has u % 23 items.
Csr randomUsers(int64_t users, int64_t items) {
  Csr m{Tensor::host<int64_t>({users + 1}, true), Tensor::host<int32_t>({users * 23}),
        Tensor::host<float>({users * 23}), items};
  int64_t nnz = 0;
  for (int64_t u = 0; u < users; ++u) {
    Random random(1, static_cast<uint64_t>(u));
    int64_t item = static_cast<int64_t>(random.below(5));
    for (int64_t n = 0; n < u % 23 && item < items; ++n, ++nnz) {
      m.indices.data<int32_t>()[nnz] = static_cast<int32_t>(item);
      m.values.data<float>()[nnz] = static_cast<float>(1 + random.below(3));
      item += 1 + static_cast<int64_t>(random.below(9));
    }
    m.indptr.data<int64_t>()[u + 1] = nnz;
  }
  m.indices.shape = m.values.shape = Shape{nnz};
  return m;
}

}  // namespace

TEST(instructionSetsAgreeAndThreadsDoNotMatter) {
  Job job;
  const Csr users = randomUsers(200, 150), items = ops::csrTranspose(job, users);
  for (const int64_t factors : {3, 16, 40}) {
    LogisticMfOptions o;
    o.factors = factors;
    o.iterations = 3;
    o.negatives = 4;
    o.learningRate = 0.2;
    o.initStd = 1;
    std::vector<LogisticMfFactors> all;
    for (const Backend* b : cpuBackends()) {
      useIsa(b->isa);
      std::vector<LogisticMfFactors> models;
      for (const int threads : {1, 2, 4}) {
        setThreadCount(threads);
        models.push_back(ops::logisticMfFit(job, users, items, {}, o));
      }
      for (const LogisticMfFactors& m : models) {
        const auto same = [](const Tensor& a, const Tensor& b) {
          return !std::memcmp(a.data<float>(), b.data<float>(), a.bytes());
        };
        CHECK(same(m.userFactors, models[0].userFactors) && same(m.itemFactors, models[0].itemFactors));
        CHECK(same(m.userBiases, models[0].userBiases) && same(m.itemBiases, models[0].itemBiases));
      }
      all.push_back(models[0]);
    }
    useIsa(cpuBackends().front()->isa);
    for (const LogisticMfFactors& m : all) {
      for (int64_t i = 0; i < m.itemFactors.count(); ++i) {
        CHECK(std::abs(m.itemFactors.data<float>()[i] - all[0].itemFactors.data<float>()[i]) < 1e-3f);
      }
    }
  }
}

TEST(badArguments) {
  Job job;
  const Csr users = randomUsers(50, 60), items = ops::csrTranspose(job, users);
  LogisticMfOptions o;
  o.factors = 4;
  CHECK_THROWS(ops::logisticMfFit(job, users, users, {}, o), shape);
  LogisticMfFactors start{Tensor::host<float>({50, 5}), Tensor::host<float>({60, 4}), Tensor::host<float>({50}),
                          Tensor::host<float>({60})};
  CHECK_THROWS(ops::logisticMfFit(job, users, items, start, o), shape);
  o.negatives = -1;
  CHECK_THROWS(ops::logisticMfFit(job, users, items, {}, o), range);
  job.cancel();
  CHECK_THROWS(ops::logisticMfFit(job, users, items, {}, LogisticMfOptions{}), aborted);
}

TEST_MAIN()
