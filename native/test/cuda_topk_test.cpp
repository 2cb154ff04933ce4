// The CUDA top-k kernels under the SIMT emulator, and on the GPUs of this machine if there are any, against the CPU
// backend and a plain sort.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>

#include "backend/registry.h"
#include "core/random.h"
#include "test/check.h"
#include "test/placed.h"
#include "test/simt/backend.h"

using namespace topknot;
using topknot::test::Placed;

namespace {

struct Problem {
  int64_t queries, items, dims, k;
  Metric metric = Metric::innerProduct;
  std::vector<float> q, x, norms;
  std::optional<std::vector<uint64_t>> allowed;
  std::vector<int64_t> seenPtr;  // empty: no seen items
  std::vector<int32_t> seenIds, seenRows;
};

struct Result {
  std::vector<int32_t> ids;
  std::vector<float> scores;
};

/// Whole numbers from -range to range: sums are exact, and so equal scores abound. range 0: normal numbers.
Problem problem(int64_t queries, int64_t items, int64_t dims, int64_t k, Metric metric, int range, uint64_t seed = 1) {
  Problem p{queries, items, dims, k, metric, {}, {}, {}, {}, {}, {}, {}};
  Random random(seed, 0);
  const auto draw = [&] {
    return range > 0 ? static_cast<float>(static_cast<int>(random.below(2 * range + 1)) - range)
                     : static_cast<float>(random.normal());
  };
  for (int64_t i = 0; i < queries * dims; ++i) p.q.push_back(draw());
  for (int64_t i = 0; i < items * dims; ++i) p.x.push_back(draw());
  for (int64_t i = 0; i < items; ++i) {
    float norm = 0;
    for (int64_t c = 0; c < dims; ++c) norm += p.x[i * dims + c] * p.x[i * dims + c];
    p.norms.push_back(norm);
  }
  return p;
}

void allow(Problem& p, double share, uint64_t seed = 2) {
  Random random(seed, 0);
  p.allowed.emplace((p.items + 63) / 64, 0);
  for (int64_t i = 0; i < p.items; ++i) {
    if (random.uniform() < share) (*p.allowed)[i / 64] |= uint64_t{1} << (i % 64);
  }
}

/// Hides a share of the items from each query; query q uses row queries - 1 - q.
void hide(Problem& p, double share, uint64_t seed = 3) {
  Random random(seed, 0);
  p.seenPtr.assign(1, 0);
  for (int64_t row = 0; row < p.queries; ++row) {
    for (int64_t i = 0; i < p.items; ++i) {
      if (random.uniform() < share) p.seenIds.push_back(static_cast<int32_t>(i));
    }
    p.seenPtr.push_back(static_cast<int64_t>(p.seenIds.size()));
    p.seenRows.push_back(static_cast<int32_t>(p.queries - 1 - row));
  }
}

bool admitted(const Problem& p, int64_t q, int64_t item) {
  if (p.allowed && !((*p.allowed)[item / 64] >> (item % 64) & 1)) return false;
  if (p.seenPtr.empty()) return true;
  const auto first = p.seenIds.begin() + p.seenPtr[p.seenRows[q]],
             last = p.seenIds.begin() + p.seenPtr[p.seenRows[q] + 1];
  return std::find(first, last, item) == last;
}

double score(const Problem& p, int64_t q, int64_t item) {
  double dot = 0, a = 0, b = 0, distance = 0;
  for (int64_t c = 0; c < p.dims; ++c) {
    const double x = p.q[q * p.dims + c], y = p.x[item * p.dims + c];
    dot += x * y;
    a += x * x;
    b += y * y;
    distance += (x - y) * (x - y);
  }
  if (p.metric == Metric::l2) return distance;
  if (p.metric == Metric::cosine) return a * b > 0 ? dot / std::sqrt(a * b) : 0;
  return dot;
}

Result runOn(const Backend& backend, const Problem& p, const Exec& exec = {}) {
  Result result{std::vector<int32_t>(p.queries * p.k, -7), std::vector<float>(p.queries * p.k, -7)};
  Placed memory(backend, exec);
  TopkArgs args{{memory.place(p.q), p.queries, p.dims},
                {memory.place(p.x), FloatType::float32, p.items, p.dims},
                p.k,
                p.metric,
                p.metric == Metric::innerProduct ? nullptr : memory.place(p.norms),
                {},
                memory.place(result.ids),
                memory.place(result.scores)};
  if (p.allowed) args.filter.allowed = memory.place(*p.allowed);
  if (!p.seenPtr.empty()) {
    args.filter.seenPtr = memory.place(p.seenPtr);
    args.filter.seenIds = memory.place(p.seenIds);
    args.filter.seenRows = memory.place(p.seenRows);
  }
  check(backend.topk(exec, args));
  memory.fetch(result.ids, args.ids);
  memory.fetch(result.scores, args.scores);
  return result;
}

/// The contract of TopkArgs by a plain sort in float64. `tolerance` is relative to the scale of the scores: with 0
/// the ids must be those of the sort, otherwise the scores at each place must be near its scores.
void checkContract(const Problem& p, const Result& r, double tolerance) {
  for (int64_t q = 0; q < p.queries; ++q) {
    std::vector<std::pair<double, int64_t>> all;
    for (int64_t i = 0; i < p.items; ++i) {
      if (admitted(p, q, i)) all.emplace_back(p.metric == Metric::l2 ? score(p, q, i) : -score(p, q, i), i);
    }
    std::sort(all.begin(), all.end());
    bool good = true;
    for (int64_t j = 0; j < p.k; ++j) {
      const int32_t id = r.ids[q * p.k + j];
      const float got = r.scores[q * p.k + j];
      if (j >= static_cast<int64_t>(all.size())) {
        good = good && id == -1 && std::isnan(got);
        continue;
      }
      const double best = p.metric == Metric::l2 ? all[j].first : -all[j].first;
      good = good && id >= 0 && id < p.items && admitted(p, q, id);
      if (!good) break;
      const double allowedError = tolerance * (p.metric == Metric::cosine ? 1 : static_cast<double>(p.dims));
      good = std::abs(got - best) <= allowedError && std::abs(got - score(p, q, id)) <= allowedError;
      if (tolerance == 0) good = good && id == all[j].second;
      for (int64_t other = 0; good && other < j; ++other) good = r.ids[q * p.k + other] != id;
    }
    if (!good)
      std::printf("query %ld of %ld x %ld x %ld, k %ld, metric %d\n", q, p.queries, p.items, p.dims, p.k,
                  static_cast<int>(p.metric));
    CHECK(good);
  }
}

bool equal(const Result& a, const Result& b) {
  return a.ids == b.ids && std::equal(a.scores.begin(), a.scores.end(), b.scores.begin(),
                                      [](float x, float y) { return x == y || (std::isnan(x) && std::isnan(y)); });
}

/// The emulated table, under every schedule: the results must be the same bits.
Result emulate(const Problem& p, const cuda::TopkPlan& plan = {}) {
  static const Backend backend = cuda::emulatedBackend();
  cuda::emulatedPlan = plan;
  std::optional<Result> first;
  simt::everySchedule([&] {
    const Result r = runOn(backend, p);
    if (first) CHECK(equal(*first, r));
    first = r;
  });
  CHECK(simt::liveAllocations() == 0);
  return *first;
}

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
