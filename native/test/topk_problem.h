// Problems of top-k for the tests of CUDA's kernels: made, run on a backend, and checked by a plain sort.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "test/check.h"
#include "test/placed.h"
#include "test/simt/backend.h"

namespace topknot::test {

struct Problem {
  int64_t queries, items, dims, k;
  Metric metric = Metric::innerProduct;
  std::vector<float> q, x, norms;
  FloatType type = FloatType::float32;
  std::vector<uint16_t> halves;  // x as it is stored, where it is of 16 bits
  std::optional<std::vector<uint64_t>> allowed;
  std::vector<int64_t> seenPtr;  // empty: no seen items
  std::vector<int32_t> seenIds, seenRows;
};

struct Result {
  std::vector<int32_t> ids;
  std::vector<float> scores;
};

inline void computeNorms(Problem& p) {
  p.norms.assign(p.items, 0);
  for (int64_t i = 0; i < p.items * p.dims; ++i) p.norms[i / p.dims] += p.x[i] * p.x[i];
}

/// Rounds the items to 16 bits; x stays what they stand for.
inline void store(Problem& p, FloatType type) {
  p.type = type;
  for (float& x : p.x) {
    const bool half = type == FloatType::float16;
    p.halves.push_back(half ? toFloat16(x).bits : toBFloat16(x).bits);
    x = half ? toFloat(Float16{p.halves.back()}) : toFloat(BFloat16{p.halves.back()});
  }
  computeNorms(p);
}

/// Whole numbers from -range to range: sums are exact, and so equal scores abound. range 0: normal numbers.
inline Problem problem(int64_t queries, int64_t items, int64_t dims, int64_t k, Metric metric, int range,
                       uint64_t seed = 1) {
  Problem p{queries, items, dims, k, metric};
  Random random(seed, 0);
  const auto draw = [&] {
    return range > 0 ? static_cast<float>(static_cast<int>(random.below(2 * range + 1)) - range)
                     : static_cast<float>(random.normal());
  };
  for (int64_t i = 0; i < queries * dims; ++i) p.q.push_back(draw());
  for (int64_t i = 0; i < items * dims; ++i) p.x.push_back(draw());
  computeNorms(p);
  return p;
}

inline void allow(Problem& p, double share, uint64_t seed = 2) {
  Random random(seed, 0);
  p.allowed.emplace((p.items + 63) / 64, 0);
  for (int64_t i = 0; i < p.items; ++i) {
    if (random.uniform() < share) (*p.allowed)[i / 64] |= uint64_t{1} << (i % 64);
  }
}

/// Hides a share of the items from each query; query q uses row queries - 1 - q.
inline void hide(Problem& p, double share, uint64_t seed = 3) {
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

inline bool admitted(const Problem& p, int64_t q, int64_t item) {
  if (p.allowed && !((*p.allowed)[item / 64] >> (item % 64) & 1)) return false;
  if (p.seenPtr.empty()) return true;
  const auto first = p.seenIds.begin() + p.seenPtr[p.seenRows[q]],
             last = p.seenIds.begin() + p.seenPtr[p.seenRows[q] + 1];
  return std::find(first, last, item) == last;
}

inline double score(const Problem& p, int64_t q, int64_t item) {
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

inline Result runOn(const Backend& backend, const Problem& p, const Exec& exec = {}) {
  Result result{std::vector<int32_t>(p.queries * p.k, -7), std::vector<float>(p.queries * p.k, -7)};
  Placed memory(backend, exec);
  TopkArgs args{
      {memory.place(p.q), p.queries, p.dims},
      {p.halves.empty() ? static_cast<void*>(memory.place(p.x)) : memory.place(p.halves), p.type, p.items, p.dims},
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
inline void checkContract(const Problem& p, const Result& r, double tolerance) {
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

inline bool equal(const Result& a, const Result& b) {
  return a.ids == b.ids && std::equal(a.scores.begin(), a.scores.end(), b.scores.begin(),
                                      [](float x, float y) { return x == y || (std::isnan(x) && std::isnan(y)); });
}

/// The emulated table, under every schedule: the results must be the same bits.
inline Result emulate(const Problem& p, const cuda::TopkPlan& plan = {}) {
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

}  // namespace topknot::test
