// The CUDA top-k kernels under the SIMT emulator, and on the GPUs of this machine if there are any, against the CPU
// backend and a plain sort.
#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>

#include "test/topk_problem.h"

using namespace topknot;
using namespace topknot::test;

namespace {

const cuda::TopkPlan selectAlways{.largestListed = 0};

}  // namespace

TEST(matchesTheCpuOnWholeNumbers) {
  for (const auto& [queries, items, dims, k] :
       {std::array<int64_t, 4>{1, 1, 1, 1}, {1, 300, 8, 10}, {3, 700, 17, 33}, {5, 513, 3, 256}, {9, 64, 33, 64}}) {
    const Problem p = problem(queries, items, dims, k, Metric::innerProduct, 3);
    const Result r = emulate(p);
    checkContract(p, r, 0);
    CHECK(equal(r, runOn(cpuBackend(), p)));
    CHECK(equal(r, emulate(p, selectAlways)));
  }
}

TEST(metrics) {
  for (const cuda::TopkPlan& plan : {cuda::TopkPlan{}, selectAlways}) {
    Problem l2 = problem(5, 400, 12, 20, Metric::l2, 2);
    std::copy_n(l2.x.begin() + 37 * l2.dims, l2.dims, l2.q.begin());  // a distance of zero
    checkContract(l2, emulate(l2, plan), 0);
    Problem cosine = problem(5, 400, 12, 20, Metric::cosine, 0);
    std::fill_n(cosine.x.begin() + 3 * cosine.dims, cosine.dims, 0.0f);  // a zero item and a zero query score 0
    cosine.norms[3] = 0;
    std::fill_n(cosine.q.begin() + cosine.dims, cosine.dims, 0.0f);
    checkContract(cosine, emulate(cosine, plan), 1e-6);
  }
}

TEST(normalNumbersNearTheCpu) {
  for (const Metric metric : {Metric::innerProduct, Metric::l2}) {
    const Problem p = problem(6, 900, 50, 25, metric, 0);
    checkContract(p, emulate(p), 1e-6);
  }
}

TEST(sixteenBitItems) {
  for (const FloatType type : {FloatType::float16, FloatType::bfloat16}) {
    for (const int64_t dims : {int64_t{12}, int64_t{17}, int64_t{50}}) {  // rows that packs of four fit, and not
      Problem whole = problem(dims == 50 ? 1 : 3, 300, dims, 20, Metric::innerProduct, 3);
      store(whole, type);
      const Result r = emulate(whole);
      checkContract(whole, r, 0);
      CHECK(equal(r, runOn(cpuBackend(), whole)));
      CHECK(equal(r, emulate(whole, selectAlways)));
    }
    for (const Metric metric : {Metric::innerProduct, Metric::cosine, Metric::l2}) {
      Problem normal = problem(3, 500, 23, 10, metric, 0);
      store(normal, type);
      checkContract(normal, emulate(normal), 1e-6);
    }
  }
}

TEST(scoresHaveTheBitsOfTheCpu) {
  for (const Metric metric : {Metric::innerProduct, Metric::cosine, Metric::l2}) {
    for (const int64_t k : {int64_t{30}, int64_t{300}}) {
      const Problem p = problem(2, 300, 37, k, metric, 0);  // k 300: all of them, so that the sets are the same
      const Result r = emulate(p), cpu = runOn(cpuBackend(), p);
      if (k == 300) CHECK(equal(r, cpu));
      for (int64_t i = 0; i < p.queries * k; ++i) {
        if (r.ids[i] == cpu.ids[i]) CHECK(r.scores[i] == cpu.scores[i]);
      }
    }
  }
  Problem far = problem(1, 300, 16, 3, Metric::l2, 1);  // |x|² - 2 q·x cancels; what was found still has its distance
  for (float& x : far.x) x += 1000;
  computeNorms(far);
  std::copy_n(far.x.begin() + 5 * far.dims, far.dims, far.q.begin());
  const Result r = emulate(far);
  for (int64_t j = 0; j < far.k; ++j) CHECK(r.scores[j] == static_cast<float>(score(far, 0, r.ids[j])));
}

TEST(filters) {
  for (const cuda::TopkPlan& plan : {cuda::TopkPlan{}, selectAlways}) {
    for (const auto& [share, hidden] : {std::pair{1.0, 0.5}, {0.3, 0.3}, {0.01, 0.0}, {0.0, 0.0}, {0.02, 0.9}}) {
      Problem p = problem(3, 1000, 5, 12, Metric::innerProduct, 4);
      allow(p, share);
      hide(p, hidden);
      const Result r = emulate(p, plan);
      checkContract(p, r, 0);
      CHECK(equal(r, runOn(cpuBackend(), p)));
    }
  }
  Problem gaps = problem(2, 3000, 4, 9, Metric::innerProduct, 4);  // whole tiles denied
  gaps.allowed.emplace(47, 0);
  (*gaps.allowed)[45] = 0xf0f0;
  (*gaps.allowed)[13] = ~uint64_t{0};
  checkContract(gaps, emulate(gaps), 0);
}

TEST(seenItemsOfOneRowDoNotTouchTheNext) {
  Problem p = problem(2, 8, 2, 8, Metric::innerProduct, 3);
  p.seenPtr = {0, 1, 2};
  p.seenIds = {3, 5};
  p.seenRows = {0, 1};
  checkContract(p, emulate(p), 0);
}

TEST(anyK) {
  for (const int64_t k : {257, 1024, 1025, 3000}) {
    const Problem p = problem(2, 2100, 4, k, Metric::innerProduct, 6);
    checkContract(p, emulate(p), 0);
  }
  Problem few = problem(2, 2500, 4, 1500, Metric::innerProduct, 6);  // fewer items than k
  allow(few, 0.2);
  checkContract(few, emulate(few), 0);
}

TEST(slicesAndChunks) {
  const Problem p = problem(7, 2000, 6, 40, Metric::innerProduct, 3);
  const Result r = emulate(p);
  checkContract(p, r, 0);
  CHECK(equal(r, emulate(p, {.slices = 1})));
  CHECK(equal(r, emulate(p, {.slices = 1000})));
  CHECK(equal(r, emulate(p, {.workspaceBytes = 1})));
  CHECK(equal(r, emulate(p, {.workspaceBytes = 5 * 2 * 40 * 8, .slices = 2})));
  CHECK(equal(r, emulate(p, {.largestListed = 0, .workspaceBytes = 1})));
  CHECK(equal(r, emulate(p, {.largestListed = 0, .workspaceBytes = 3 * (2000 + 1024) * 8})));
}

TEST(manyEqualScores) {
  Problem p = problem(2, 1500, 2, 100, Metric::innerProduct, 1);
  std::fill(p.x.begin(), p.x.end(), 1.0f);
  const Result r = emulate(p);
  for (int64_t j = 0; j < p.k; ++j) CHECK(r.ids[j] == j);
  CHECK(equal(r, emulate(p, selectAlways)));
}

TEST(notANumberComesLast) {
  Problem p = problem(1, 40, 2, 40, Metric::innerProduct, 3);
  p.x[10 * 2] = p.x[20 * 2] = std::numeric_limits<float>::quiet_NaN();
  p.x[15 * 2] = -std::numeric_limits<float>::infinity();
  p.q = {1, 1};
  for (const cuda::TopkPlan& plan : {cuda::TopkPlan{}, selectAlways}) {
    const Result r = emulate(p, plan);
    CHECK(r.ids[37] == 15 && r.ids[38] == 10 && r.ids[39] == 20);
    CHECK(std::isinf(r.scores[37]) && std::isnan(r.scores[38]) && std::isnan(r.scores[39]));
  }
}

TEST(emptyShapes) {
  for (const cuda::TopkPlan& plan : {cuda::TopkPlan{}, selectAlways}) {
    const Problem noItems = problem(2, 0, 4, 3, Metric::innerProduct, 3);
    checkContract(noItems, emulate(noItems, plan), 0);
    const Problem noColumns = problem(2, 5, 0, 3, Metric::innerProduct, 3);
    checkContract(noColumns, emulate(noColumns, plan), 0);
    CHECK(emulate(problem(0, 5, 2, 3, Metric::innerProduct, 3), plan).ids.empty());
  }
}

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (all.size() == 1) std::printf("     no CUDA device: %s\n", cudaProblem().c_str());
  CHECK(!cudaProblem().empty() || all.size() > 1);
  // Where the plugin was built beside this test, it must at least open.
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Exec exec{.device = all[i].device.index};
    const Backend& gpu = backendOf(all[i].device);
    for (const int64_t k : {1, 10, 256, 300, 5000}) {
      Problem p = problem(33, 20000, 24, k, Metric::innerProduct, 3);
      allow(p, 0.9);
      hide(p, 0.01);
      checkContract(p, runOn(gpu, p, exec), 0);
      for (const Metric metric : {Metric::innerProduct, Metric::l2, Metric::cosine}) {
        const Problem normal = problem(17, 20000, 64, k, metric, 0);
        checkContract(normal, runOn(gpu, normal, exec), 2e-6);
      }
    }
  }
}

TEST_MAIN()
