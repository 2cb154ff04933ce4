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

class TopkScan {
 public:
  explicit TopkScan(const TopkArgs& args);

  const TopkArgs& args;
  /// Items to scan; the j-th is itemAt(j). Few allowed items are listed, else all are scanned and survivors tested.
  int64_t count;
  int32_t itemAt(int64_t j) const { return listed() ? list_[j] : static_cast<int32_t>(j); }
  bool listed() const { return !list_.empty(); }

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
  double exactScore(int64_t query, int32_t item) const;
  void rescore(const Exec& exec, int64_t query, std::span<Key> keys) const;

  std::vector<int32_t> list_;
  std::vector<float> queryScales_;
  std::vector<double> queryNorms_, shifts_;
  double gamma_;  // bounds the relative rounding error of a float32 dot product
};

}  // namespace topknot
