// Splits: which part each interaction belongs to, and the interactions of a part. Random numbers are keyed by (seed,
// user row), so a split never depends on threads.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/random.h"
#include "ops/interactions.h"
#include "ops/ops.h"

namespace topknot {
namespace {

constexpr int64_t userGrain = 256, entryGrain = 1 << 16;

/// The random numbers of one user in a split; apart from those of a model that is fitted with the same seed.
Random userRandom(int64_t seed, int64_t user) {
  return Random(static_cast<uint64_t>(seed) ^ 0x73706c6974u, static_cast<uint64_t>(user));
}

/// Calls assign(user, parts, count) for the interactions of every user. Parts start at 0.
template <typename Assign>
Tensor partsByUser(Job& job, const Tensor& users, int64_t userCount, Assign&& assign) {
  const std::vector<int64_t> starts = userStarts(users, userCount);
  Tensor parts = Tensor::host<int32_t>({users.count()}, true);
  parallelFor(userCount, userGrain, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t u = begin; u < end; ++u) {
      assign(u, parts.data<int32_t>() + starts[u], starts[u + 1] - starts[u]);
    }
  });
  job.checkCancelled();
  return parts;
}

/// 0 to n - 1 in random order; only the first `count` places are drawn.
std::vector<int64_t> shuffled(int64_t n, int64_t count, Random& random) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t j = 0; j < std::min(count, n - 1); ++j) {
    std::swap(order[j], order[j + static_cast<int64_t>(random.below(static_cast<uint64_t>(n - j)))]);
  }
  return order;
}

}  // namespace

namespace ops {

Tensor splitRatio(Job& job, Tensor users, int64_t userCount, double test, bool byUser, int64_t seed) {
  require(test > 0 && test < 1, ErrorCode::range, "test: expected a share between 0 and 1 but received ", test);
  return partsByUser(job, users, userCount, [&](int64_t user, int32_t* parts, int64_t n) {
    Random random = userRandom(seed, user);
    if (!byUser) {
      for (int64_t i = 0; i < n; ++i) parts[i] = random.uniform() < test;
      return;
    }
    const int64_t count = std::min<int64_t>(std::llround(test * static_cast<double>(n)), n - 1);
    if (count <= 0) return;
    const std::vector<int64_t> order = shuffled(n, count, random);
    for (int64_t j = 0; j < count; ++j) parts[order[j]] = 1;
  });
}

Tensor splitLast(Job& job, Tensor users, int64_t userCount, int64_t n) {
  require(n >= 1, ErrorCode::range, "n: expected at least 1 but received ", n);
  return partsByUser(job, users, userCount, [&](int64_t, int32_t* parts, int64_t count) {
    if (count > n) std::fill(parts + count - n, parts + count, 1);
  });
}

Tensor splitTime(Job& job, Tensor times, double at) {
  expect(times, "times", DType::float64, 1);
  require(!std::isnan(at), ErrorCode::value, "at: expected a time but received NaN");
  Tensor parts = Tensor::host<int32_t>({times.count()});
  parallelFor(times.count(), entryGrain, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) parts.data<int32_t>()[i] = times.data<double>()[i] >= at;
  });
  job.checkCancelled();
  return parts;
}

Tensor splitFolds(Job& job, Tensor users, int64_t userCount, int64_t k, int64_t seed) {
  require(k >= 2 && k <= INT32_MAX, ErrorCode::range, "k: expected at least 2 folds but received ", k);
  return partsByUser(job, users, userCount, [&](int64_t user, int32_t* parts, int64_t n) {
    Random random = userRandom(seed, user);
    // Without its own first fold for each user, the early folds would get all users with few interactions.
    const int64_t first = static_cast<int64_t>(random.below(static_cast<uint64_t>(k)));
    const std::vector<int64_t> order = shuffled(n, n, random);
    for (int64_t j = 0; j < n; ++j) parts[order[j]] = static_cast<int32_t>((first + j) % k);
  });
}

double timeQuantile(Job&, Tensor times, double fraction) {
  expect(times, "times", DType::float64, 1);
  require(fraction >= 0 && fraction < 1, ErrorCode::range, "fraction: expected 0 to 1 but received ", fraction);
  require(times.count() > 0, ErrorCode::shape, "times: expected at least one");
  std::vector<double> sorted(times.data<double>(), times.data<double>() + times.count());
  const auto at = sorted.begin() + std::llround(fraction * static_cast<double>(sorted.size() - 1));
  std::nth_element(sorted.begin(), at, sorted.end());
  return *at;
}

Triplets interactionsSelect(Job& job, Triplets data, Tensor parts, int64_t part, bool inside) {
  expectTriplets(data);
  expect(parts, "parts", DType::int32, 1);
  const int64_t n = data.users.count(), blocks = (n + entryGrain - 1) / entryGrain;
  require(parts.count() == n, ErrorCode::shape, "parts: expected ", n, " entries but received ", parts.count());
  const auto chosen = [&](int64_t i) { return (parts.data<int32_t>()[i] == part) == inside; };
  std::vector<int64_t> starts(static_cast<size_t>(blocks) + 1);
  parallelFor(n, entryGrain, job.exec(), [&](int64_t begin, int64_t end, int) {
    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) count += chosen(i);
    starts[begin / entryGrain + 1] = count;
  });
  job.checkCancelled();
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  const int64_t total = starts.back();
  Triplets out{Tensor::host<int32_t>({total}), Tensor::host<int32_t>({total}), Tensor::host<float>({total})};
  if (data.times) out.times = Tensor::host<double>({total});
  parallelFor(n, entryGrain, job.exec(), [&](int64_t begin, int64_t end, int) {
    int64_t at = starts[begin / entryGrain];
    for (int64_t i = begin; i < end; ++i) {
      if (!chosen(i)) continue;
      out.users.data<int32_t>()[at] = data.users.data<int32_t>()[i];
      out.items.data<int32_t>()[at] = data.items.data<int32_t>()[i];
      out.values.data<float>()[at] = data.values.data<float>()[i];
      if (data.times) out.times->data<double>()[at] = data.times->data<double>()[i];
      ++at;
    }
  });
  job.checkCancelled();
  return out;
}

}  // namespace ops
}  // namespace topknot
