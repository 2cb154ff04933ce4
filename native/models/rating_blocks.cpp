#include "models/rating_blocks.h"

#include <numeric>
#include <utility>

#include "core/random.h"

namespace topknot {
namespace {

// What random numbers are for: the high bits of their row.
constexpr uint64_t userGroups = uint64_t{1} << 56, itemGroups = uint64_t{2} << 56, orders = uint64_t{3} << 56;

std::vector<int32_t> groups(int64_t count, int64_t strata, int64_t seed, uint64_t purpose) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (size_t r = 0; r < out.size(); ++r) {
    out[r] =
        static_cast<int32_t>(philox(static_cast<uint64_t>(seed), purpose + r, 0)[0] % static_cast<uint64_t>(strata));
  }
  return out;
}

template <typename T>
void fisherYates(T* values, int64_t count, Random random) {
  for (int64_t i = count - 1; i > 0; --i) std::swap(values[i], values[random.below(static_cast<uint64_t>(i) + 1)]);
}

}  // namespace

int64_t RatingBlocks::strataFor(int64_t ratings) {
  int64_t strata = 1;
  while (strata < 64 && 4 * strata * strata * 8192 <= ratings) strata *= 2;
  return strata;
}

RatingBlocks::RatingBlocks(const Csr& ratings, double mean, int64_t seed)
    : strata(strataFor(ratings.nnz())),
      entries(static_cast<size_t>(ratings.nnz())),
      borders(static_cast<size_t>(strata * strata + 1), 0),
      rounds(static_cast<size_t>(strata)) {
  const CsrView v = ratings.view();
  const std::vector<int32_t> userGroup = groups(v.rows, strata, seed, userGroups);
  const std::vector<int32_t> itemGroup = groups(v.cols, strata, seed, itemGroups);
  const auto block = [&](int64_t u, int64_t e) {
    return static_cast<size_t>(userGroup[static_cast<size_t>(u)] * strata +
                               itemGroup[static_cast<size_t>(v.indices[e])]);
  };
  for (int64_t u = 0; u < v.rows; ++u) {
    for (int64_t e = v.indptr[u]; e < v.indptr[u + 1]; ++e) ++borders[block(u, e) + 1];
  }
  std::partial_sum(borders.begin(), borders.end(), borders.begin());
  std::vector<int64_t> next(borders.begin(), borders.end() - 1);
  for (int64_t u = 0; u < v.rows; ++u) {
    for (int64_t e = v.indptr[u]; e < v.indptr[u + 1]; ++e) {
      entries[static_cast<size_t>(next[block(u, e)]++)] = {static_cast<int32_t>(u), v.indices[e],
                                                           static_cast<float>(static_cast<double>(v.values[e]) - mean)};
    }
  }
  std::iota(rounds.begin(), rounds.end(), 0);
}

void RatingBlocks::shuffle(Job& job, int64_t seed, int64_t epoch) {
  const int64_t blocks = strata * strata;
  const auto random = [&](int64_t block) {  // 2^12 blocks at most, and one more key for the rounds
    return Random(static_cast<uint64_t>(seed),
                  orders + static_cast<uint64_t>(epoch) * 8192 + static_cast<uint64_t>(block));
  };
  fisherYates(rounds.data(), strata, random(blocks));
  parallelFor(blocks, 1, job.exec(), [&](int64_t k, int64_t, int) {
    const int64_t begin = borders[static_cast<size_t>(k)], end = borders[static_cast<size_t>(k) + 1];
    fisherYates(entries.data() + begin, end - begin, random(k));
  });
  job.checkCancelled();
}

}  // namespace topknot
