// The way of CUDA's top-k over tensor cores under the SIMT emulator: the answers of the plain path.
#include <algorithm>
#include <limits>

#include "test/topk_problem.h"

using namespace topknot;
using namespace topknot::test;

namespace {

const cuda::TopkPlan tensorAlways{.tensorQueries = 1, .tensorItems = 1};

/// How many queries the tensor cores answered, of a problem whose answers must be the plain path's.
int64_t answeredByTensorCores(const Problem& p) {
  std::vector<uint8_t> done(p.queries, 9);
  cuda::TopkPlan plan = tensorAlways;
  plan.done = done.data();
  CHECK(equal(emulate(p), emulate(p, plan)));
  return std::count(done.begin(), done.end(), 1);
}

}  // namespace

TEST(tensorCoresGiveTheAnswersOfThePlainPath) {
  for (const Metric metric : {Metric::innerProduct, Metric::cosine, Metric::l2}) {
    for (const FloatType type : {FloatType::float32, FloatType::float16, FloatType::bfloat16}) {
      if (type != FloatType::float32 && metric == Metric::l2) continue;
      Problem p = problem(5, 300, 21, 5, metric, 0);
      if (type != FloatType::float32) store(p, type);
      if (metric == Metric::cosine) std::fill_n(p.q.begin(), p.dims, 0.0f);
      CHECK(answeredByTensorCores(p) >= 4);
      if (type != FloatType::float32 || metric != Metric::innerProduct) continue;
      allow(p, 0.4);
      hide(p, 0.3);
      CHECK(answeredByTensorCores(p) >= 4);
    }
  }
}

TEST(tilesOfQueriesAndChunksOfThem) {  // under one schedule: there is much of it
  static const Backend backend = cuda::emulatedBackend();
  const Problem p = problem(130, 300, 40, 3, Metric::innerProduct, 0);
  cuda::emulatedPlan = {};
  const Result plain = runOn(backend, p);
  for (const int64_t queries : {90, 1000}) {
    cuda::emulatedPlan = tensorAlways;
    cuda::emulatedPlan.workspaceBytes = queries * (38 + 2 * 8 * 35 + 1024) * 8;
    CHECK(equal(plain, runOn(backend, p)));
  }
}

TEST(whatTheBoundCannotProveIsSearchedAgain) {
  Problem ties = problem(2, 300, 8, 20, Metric::innerProduct, 1);
  std::fill(ties.x.begin(), ties.x.end(), 1.0f);
  CHECK(answeredByTensorCores(ties) == 0);
  Problem unusual = problem(2, 300, 4, 6, Metric::innerProduct, 0);
  unusual.x[7] = std::numeric_limits<float>::quiet_NaN();
  CHECK(answeredByTensorCores(unusual) == 0);
  Problem faint = problem(2, 300, 4, 6, Metric::cosine, 0);  // squared lengths of few digits
  for (float& x : faint.x) x *= 1e-19f;
  computeNorms(faint);
  CHECK(answeredByTensorCores(faint) == 0);
}

TEST_MAIN()
