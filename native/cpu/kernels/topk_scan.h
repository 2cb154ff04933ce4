// What every way of scanning for top-k shares: which items to scan, how a scan score relates to the metric, and how the
// threads' candidates become the answer.
//
// The scan computes, for each pair, dot(scaled query, item) * itemScale + itemOffset in float32, and drops the pair
// when that is at most the query's threshold.
// - Inner product: the scan score is the score; selection goes by it alone. The k winners are then scored again in
//   float64 (pair_score.h) and sorted, so a pair's score is the same in every batch and on every instruction set.
// - Cosine and l2: a pair that is not dropped is scored in float64 at once and only that score is kept. The threshold
//   allows for the rounding of the scan: a dropped pair is provably no better than k kept ones. So the answer is the
//   exact top-k of the float64 scores rounded to float32, even where |x|² - 2 q·x cancels badly; data for which the
//   scan tells nothing (far from the origin, nearly overflowing) only costs time.
#pragma once
#include <vector>

#include "cpu/kernels/candidates.h"
#include "core/thread_pool.h"

namespace topknot {

/// The items to scan. Few allowed items are listed; else all are scanned and survivors are tested.
class ScanItems {
 public:
  ScanItems(const FilterView& filter, int64_t rows);

  int64_t count;
  bool listed() const { return !list_.empty(); }
  /// The j-th of them.
  int32_t at(int64_t j) const { return listed() ? list_[j] : static_cast<int32_t>(j); }

 private:
  std::vector<int32_t> list_;
};

/// Scores of pairs in float64 from the values as they are stored; greater is better, so l2 is negative.
class PairScorer {
 public:
  explicit PairScorer(const TopkArgs& args);

  double score(int64_t query, int32_t item) const;
  float rounded(int64_t query, int32_t item) const { return static_cast<float>(score(query, item)); }
  /// |q|²; for cosine and l2.
  double queryNorm(int64_t query) const { return queryNorms_[query]; }

 private:
  const TopkArgs& args_;
  std::vector<double> queryNorms_;
};

/// Sorts the candidates of a query and writes its answer.
void writeTopk(const TopkArgs& args, int64_t query, std::span<Key> best);

/// Scores the candidates of a query again, in float64.
void rescore(const Exec& exec, const PairScorer& scorer, int64_t query, std::span<Key> keys);

class TopkScan {
 public:
  using Packed = float;  // what queries are made of in a Block
  explicit TopkScan(const TopkArgs& args);

  const TopkArgs& args;
  const ScanItems items;
  const PairScorer scorer;

  bool affine() const { return args.metric != Metric::innerProduct; }
  /// What queries are multiplied by before the scan; null: 1.
  const float* queryScales() const { return queryScales_.empty() ? nullptr : queryScales_.data(); }
  /// l2: itemOffset is minus this share of the item's squared length, just below 1 to allow for rounding.
  float normShare() const;
  /// Squared lengths within which products neither overflow nor lose precision; beyond them the item's terms and so
  /// its scan score are NaN, which no threshold drops.
  static constexpr float safeMin = 1e-25f, safeMax = 1e36f;
  /// Added to the k-th best score to give the threshold, for each query.
  const double* shifts() const { return shifts_.data(); }

  /// Takes a pair that passed its threshold: filters, scores, keeps. `local` is the query's place in `candidates`.
  void offer(Candidates& candidates, int64_t query, int64_t local, int64_t j, float scanScore) const;

  /// Writes the answers of queries [first, first + n) from what the threads kept.
  void finish(const Exec& exec, int64_t first, int64_t n, const CandidatesBySlot& kept) const;

 private:
  std::vector<float> queryScales_;
  std::vector<double> shifts_;
  double gamma_;  // bounds the relative rounding error of a float32 dot product
};

}  // namespace topknot
