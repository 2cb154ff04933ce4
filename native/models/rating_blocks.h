// The order in which stochastic gradient descent visits ratings; a function of the matrix and the seed alone.
#pragma once
#include <vector>

#include "backend/rating_args.h"
#include "core/csr.h"
#include "core/job.h"

namespace topknot {

/// Ratings in strata² blocks: users are dealt to `strata` groups at random, keyed by (seed, user), items likewise, and
/// block (s, b) holds the ratings of users of group s and items of group b.
struct RatingBlocks {
  int64_t strata;
  std::vector<RatingEntry> entries;
  std::vector<int64_t> borders;  // [strata² + 1]
  std::vector<int32_t> rounds;   // [strata]

  RatingBlocks(const Csr& ratings, double mean, int64_t seed);

  /// Orders the rounds of an epoch and the ratings within each block anew, by Fisher and Yates, keyed by (seed, epoch,
  /// block).
  void shuffle(Job& job, int64_t seed, int64_t epoch);

  /// A power of two that leaves a block 8,192 ratings or more on average: one block for up to 32,767 ratings.
  static int64_t strataFor(int64_t ratings);
};

}  // namespace topknot
