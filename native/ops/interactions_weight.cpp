// Weighting and normalising the values of interactions. Computed in float64 in the order of the interactions, so the
// result never depends on threads; rounded to float32 once.
#include <algorithm>
#include <cmath>

#include "ops/interactions.h"
#include "ops/ops.h"

namespace topknot {

std::vector<int64_t> userStarts(const Tensor& users, int64_t userCount) {
  expect(users, "users", DType::int32, 1);
  std::vector<int64_t> starts(static_cast<size_t>(userCount) + 1, users.count());
  int64_t next = 0;  // the first user whose start is not known yet
  int32_t before = 0;
  for (int64_t i = 0; i < users.count(); ++i) {
    const int32_t user = users.data<int32_t>()[i];
    require(user >= before && user < userCount, ErrorCode::range, "users: expected rising rows below ", userCount,
            " but entry ", i, " is ", user);
    while (next <= user) starts[next++] = i;
    before = user;
  }
  return starts;
}

void expectTriplets(const Triplets& data) {
  expect(data.users, "users", DType::int32, 1);
  expect(data.items, "items", DType::int32, 1);
  expect(data.values, "values", DType::float32, 1);
  if (data.times) expect(*data.times, "times", DType::float64, 1);
  require(data.items.count() == data.users.count() && data.values.count() == data.users.count() &&
              (!data.times || data.times->count() == data.users.count()),
          ErrorCode::shape, "data: expected columns of one length");
}

namespace {

constexpr int64_t userGrain = 256;

/// Calls weigh(user, begin, end, out) for every user's interactions, and checks that float32 can hold what comes out.
template <typename Weigh>
Tensor eachUser(Job& job, const Triplets& data, const std::vector<int64_t>& starts, Weigh&& weigh) {
  Tensor out = Tensor::host<float>({data.values.count()});
  const int64_t users = static_cast<int64_t>(starts.size()) - 1;
  parallelFor(users, userGrain, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t u = begin; u < end; ++u) weigh(starts[u], starts[u + 1], out.data<float>());
  });
  job.checkCancelled();
  for (int64_t i = 0; i < out.count(); ++i) {
    require(std::isfinite(out.data<float>()[i]), ErrorCode::value, "values: the weight of interaction ", i,
            " does not fit a float32");
  }
  return out;
}

double sum(const float* values, int64_t begin, int64_t end) {
  double total = 0;
  for (int64_t i = begin; i < end; ++i) total += values[i];
  return total;
}

}  // namespace

namespace ops {

Tensor interactionsWeight(Job& job, Triplets data, int64_t userCount, int64_t itemCount, WeightOptions options) {
  expectTriplets(data);
  const std::vector<int64_t> starts = userStarts(data.users, userCount);
  const float* values = data.values.data<float>();
  const int32_t* items = data.items.data<int32_t>();
  for (int64_t i = 0; options.scheme != Weighting::binary && i < data.values.count(); ++i) {
    require(values[i] >= 0, ErrorCode::value, "values: expected none below 0 for this weighting but interaction ", i,
            " has ", values[i]);
  }

  std::vector<int64_t> frequency(static_cast<size_t>(itemCount));  // users of each item
  for (const int32_t item : data.items.span<int32_t>()) {
    require(item >= 0 && item < itemCount, ErrorCode::range, "items: expected rows below ", itemCount, " but received ",
            item);
    ++frequency[item];
  }
  const double users = static_cast<double>(userCount);
  std::vector<double> idf(frequency.size());
  for (size_t item = 0; item < idf.size(); ++item) {
    const double f = static_cast<double>(frequency[item]);
    idf[item] = options.scheme == Weighting::bm25 ? std::log1p((users - f + 0.5) / (f + 0.5))
                                                  : std::log((1 + users) / (1 + f)) + 1;
  }
  std::vector<double> rarity(frequency.size());
  double raritySum = 0;  // over the interactions: an item with n of them counts n times
  for (size_t item = 0; item < rarity.size(); ++item) {
    if (frequency[item] == 0) continue;
    rarity[item] = std::pow(static_cast<double>(frequency[item]), -options.exponent);
    raritySum += rarity[item] * static_cast<double>(frequency[item]);
  }
  const double rarityScale = raritySum > 0 ? static_cast<double>(data.items.count()) / raritySum : 1;
  double total = 0;
  if (options.scheme == Weighting::bm25) total = sum(values, 0, data.values.count());
  const double averageLength = total > 0 ? total / users : 1;

  return eachUser(job, data, starts, [&](int64_t begin, int64_t end, float* out) {
    const double length = options.scheme == Weighting::bm25 ? sum(values, begin, end) : 0;
    const double saturation = options.k1 * (1 - options.b + options.b * length / averageLength);
    for (int64_t i = begin; i < end; ++i) {
      const double v = values[i];
      double weight = 1;
      if (options.scheme == Weighting::log) weight = std::log1p(options.alpha * v);
      if (options.scheme == Weighting::tfidf) weight = v * idf[items[i]];
      if (options.scheme == Weighting::rarity) weight = v * rarity[items[i]] * rarityScale;
      if (options.scheme == Weighting::bm25)
        weight = v > 0 ? idf[items[i]] * v * (options.k1 + 1) / (v + saturation) : 0;
      out[i] = static_cast<float>(weight);
    }
  });
}

Tensor interactionsNormalize(Job& job, Triplets data, int64_t userCount, Normalization normalization) {
  expectTriplets(data);
  const float* values = data.values.data<float>();
  return eachUser(job, data, userStarts(data.users, userCount), [&](int64_t begin, int64_t end, float* out) {
    double shift = 0, length = 0;
    for (int64_t i = begin; i < end; ++i) {
      const double v = values[i];
      length += normalization == Normalization::l1 ? std::abs(v) : v * v;
    }
    if (normalization == Normalization::l2) length = std::sqrt(length);
    if (normalization == Normalization::meanCenter && end > begin) {
      shift = sum(values, begin, end) / static_cast<double>(end - begin);
      length = 1;
    }
    const double scale = length > 0 ? 1 / length : 0;
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<float>((values[i] - shift) * scale);
  });
}

}  // namespace ops
}  // namespace topknot
