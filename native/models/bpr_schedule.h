// The order of an epoch of BPR, in which no two threads touch the same row.
//
// Users are dealt at random into `parts` strata, items into `parts` blocks; task (s, b) has the positives of stratum s
// whose item is in block b, in random order. Round r runs the tasks (s, (s + r) mod parts), which share no row as long
// as negatives come from the task's own block. As in Gemulla, Nijkamp, Haas, Sismanis, "Large-scale matrix
// factorization with distributed stochastic gradient descent", KDD 2011. All of it depends on the sizes, the seed and
// the epoch.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "backend/bpr_args.h"
#include "core/random.h"
#include "core/tensor.h"
#include "core/thread_pool.h"

namespace topknot {

/// What random numbers are for; with the epoch and an index below 2^20 it names their stream. 0 is left to the values
/// that factors start from.
enum class BprPurpose : uint64_t { users = 1, items, order, negatives, fold, itemRows };

constexpr uint64_t bprStream(BprPurpose purpose, int64_t epoch, int64_t index) {
  return static_cast<uint64_t>(purpose) << 60 | static_cast<uint64_t>(epoch) << 20 | static_cast<uint64_t>(index);
}

/// Fisher and Yates's shuffle, from the last place down.
template <typename Swap>
void shuffle(int64_t count, Random random, Swap&& swap) {
  for (int64_t i = count - 1; i > 0; --i) {
    swap(i, static_cast<int64_t>(random.below32(static_cast<uint32_t>(i + 1))));
  }
}

/// The entries of one row of `count` in the order in which an epoch of fold-in takes them up; and the stream that the
/// negatives are drawn from meanwhile. The same for all rows.
std::vector<int64_t> bprFoldOrder(int64_t count, int64_t epoch, uint64_t seed, BprPurpose purpose = BprPurpose::fold);
inline constexpr uint64_t bprFoldDraws = bprStream(BprPurpose::fold, 0, 1);

class BprSchedule {
 public:
  BprSchedule(const CsrView& users, int64_t parts, uint64_t seed);

  /// Deals users, items and positives anew.
  void deal(const Exec& exec, int64_t epoch);

  int64_t parts() const { return parts_; }
  std::span<int32_t> positiveUsers() const { return positiveUsers_.span<int32_t>(); }
  /// The positives of block 0, by stratum, then those of block 1, ...
  std::span<int32_t> positiveItems() const { return positiveItems_.span<int32_t>(); }
  /// The items of block 0, of block 1, ...
  std::span<int32_t> items() const { return items_.span<int32_t>(); }

  /// Task (s, b) drawing from places of items() or, `popular`, of positiveItems(): its own block's or, `everywhere`,
  /// all.
  BprTask task(int64_t stratum, int64_t block, bool popular, bool everywhere) const;

 private:
  int64_t firstUser(int64_t stratum) const { return stratum * users_.rows / parts_; }
  int64_t firstItem(int64_t block) const { return block * users_.cols / parts_; }
  int64_t at(int64_t stratum, int64_t block) const { return block * parts_ + stratum; }

  CsrView users_;
  int64_t parts_, epoch_ = 0;
  uint64_t seed_;
  std::vector<int32_t> userOrder_, blockOf_;
  std::vector<int64_t> starts_;  // of the task (s, b), by at(s, b); [parts² + 1]
  Tensor items_, positiveUsers_, positiveItems_;
};

}  // namespace topknot
