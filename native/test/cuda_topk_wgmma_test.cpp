// The passes of top-k for compute capability 9.0a (TOPKNOT_SM90A=1) under the SIMT emulator, and on the GPUs of this
// machine that have it: the answers of the plain path.
#include <algorithm>
#include <limits>

#include "test/simt/faults.h"
#include "test/sm90a.h"
#include "test/topk_problem.h"

using namespace topknot;
using namespace topknot::test;

namespace {

const cuda::TopkPlan tensorAlways{.tensorQueries = 1, .tensorItems = 1};

/// How many queries the passes answered, of a problem whose answers must be the plain path's.
int64_t answered(const Problem& p) {
  const Sm90a on;
  std::vector<uint8_t> done(p.queries, 9);
  cuda::TopkPlan plan = tensorAlways;
  plan.done = done.data();
  CHECK(equal(emulate(p), emulate(p, plan)));
  return std::count(done.begin(), done.end(), 1);
}

/// Whether topkWgmma is among the first kernels of this problem's call, each of which is made to fault in turn.
bool takesIt(const Problem& p) {
  static const Backend backend = cuda::emulatedBackend();
  cuda::emulatedPlan = tensorAlways;
  for (int64_t launch = 1; launch <= 3; ++launch) {
    simt::faults().grid = launch;
    std::string said;
    try {
      runOn(backend, p);
    } catch (const Error& e) {
      said = e.what();
    }
    simt::faults().grid = 0;
    cuda::LostDevices::all().clear();
    if (said.find("topkWgmma") != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST(theAnswersOfThePlainPath) {
  const struct {
    Metric metric;
    FloatType type;
    bool filtered;
  } cases[] = {{Metric::innerProduct, FloatType::float32, true},
               {Metric::innerProduct, FloatType::float16, false},
               {Metric::innerProduct, FloatType::bfloat16, true},
               {Metric::cosine, FloatType::bfloat16, false},
               {Metric::l2, FloatType::float32, false}};
  for (const auto& [metric, type, filtered] : cases) {
    Problem p = problem(5, 520, 72, 5, metric, 0);  // depth: more than one stage, and a tail
    if (type != FloatType::float32) store(p, type);
    if (metric == Metric::cosine) std::fill_n(p.q.begin(), p.dims, 0.0f);
    if (filtered) {
      allow(p, 0.4);
      hide(p, 0.3);
      for (int w = 4; w < 8; ++w) (*p.allowed)[w] = 0;  // a tile without items
    }
    CHECK(answered(p) >= 4);
  }
}

TEST(queriesOfAnySize) {
  Problem p = problem(6, 300, 24, 5, Metric::innerProduct, 0);
  for (int64_t c = 0; c < p.dims; ++c) {
    p.q[c] *= 1e6f, p.q[p.dims + c] *= 1e-6f, p.q[2 * p.dims + c] *= 1e-30f, p.q[3 * p.dims + c] *= 1e30f;
  }
  store(p, FloatType::float16);
  CHECK(answered(p) >= 5);
}

TEST(tilesOfQueriesAndChunksOfThem) {  // under one schedule: there is much of it
  static const Backend backend = cuda::emulatedBackend();
  Problem p = problem(130, 300, 40, 3, Metric::innerProduct, 0);
  store(p, FloatType::bfloat16);
  cuda::emulatedPlan = {};
  const Result plain = runOn(backend, p);
  const Sm90a on;
  cuda::emulatedPlan = tensorAlways;
  CHECK(equal(plain, runOn(backend, p)));
  cuda::emulatedPlan.workspaceBytes = 90 * (38 + 2 * 8 * 70 + 1024) * 8;
  CHECK(equal(plain, runOn(backend, p)));
}

TEST(whatTheBoundCannotProveIsSearchedAgain) {
  Problem ties = problem(2, 300, 8, 20, Metric::innerProduct, 1);
  std::fill(ties.x.begin(), ties.x.end(), 1.0f);
  CHECK(answered(ties) == 0);
  Problem unusual = problem(2, 300, 4, 6, Metric::innerProduct, 0);
  unusual.x[7] = std::numeric_limits<float>::quiet_NaN();
  CHECK(answered(unusual) == 0);
  Problem infinite = problem(2, 300, 8, 6, Metric::innerProduct, 0);
  infinite.q[3] = std::numeric_limits<float>::infinity();
  store(infinite, FloatType::float16);
  CHECK(answered(infinite) == 1);
}

TEST(whichSearchesTakeIt) {
  Problem p = problem(2, 300, 16, 3, Metric::innerProduct, 0);
  CHECK(!takesIt(p));
  const Sm90a on;
  CHECK(takesIt(p));
  CHECK(!takesIt(problem(2, 300, 18, 3, Metric::innerProduct, 0)));  // rows that are not of whole 16-byte pieces
  store(p, FloatType::bfloat16);
  CHECK(takesIt(p));
}

TEST(onTheGpusOfThisMachine) {  // by the kernels that TOPKNOT_SM90A asks for
  const std::vector<DeviceInfo> all = devices();
  for (size_t i = 1; i < all.size(); ++i) {
    const Backend& gpu = backendOf(all[i].device);
    if (std::string(gpu.isa) != "sm_90") continue;
    for (const FloatType type : {FloatType::float32, FloatType::float16, FloatType::bfloat16}) {
      Problem p = problem(200, 100000, 72, 20, Metric::innerProduct, 0);  // enough for the tensor cores
      if (type != FloatType::float32) store(p, type);
      hide(p, 0.01);
      const Exec exec{.device = all[i].device.index};
      const Result plain = runOn(gpu, p, exec);
      CHECK(equal(plain, runOn(gpu, p, exec)));
    }
  }
}

TEST_MAIN()
