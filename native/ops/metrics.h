// What evaluation passes across the binding. The formulas are in lib/metrics/metrics.ts, next to their sources.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "core/fields.h"
#include "core/tensor.h"

namespace topknot {

/// Metrics of one user's list, averaged over users.
enum class ListMetric : int32_t { precision, recall, f1, hitRate, ndcg, map, mrr, novelty, diversity };
TOPKNOT_ENUM(ListMetric, "precision", "recall", "f1", "hitRate", "ndcg", "map", "mrr", "novelty", "diversity")

/// What a test item is worth to NDCG: 1, its value v, or 2^v - 1.
enum class Gains : int32_t { binary, linear, exponential };
TOPKNOT_ENUM(Gains, "binary", "linear", "exponential")

/// Who comes first among candidates of one score: the lower id, or whatever is not a test item.
enum class Ties : int32_t { id, against };
TOPKNOT_ENUM(Ties, "id", "against")

struct ListMetricsOptions {
  std::vector<int64_t> k;           // rising
  std::vector<ListMetric> metrics;  // may be empty
  Gains gains = Gains::binary;
  bool catalogue = false;  // compute coverage and Gini
  bool perUser = false;
};
TOPKNOT_FIELDS(ListMetricsOptions, k, metrics, gains, catalogue, perUser)

struct ListMetricsResult {
  TypedArray means;                   // float64 [metrics * k]
  TypedArray coverage, gini;          // float64 [k], empty unless asked for
  std::optional<TypedArray> perUser;  // float64 [metrics * k * users]
};
TOPKNOT_FIELDS(ListMetricsResult, means, coverage, gini, perUser)

/// Items to score for each user of a block: those of users[j] are entries ptr[j] to ptr[j + 1].
struct CandidatePairs {
  Tensor ptr;               // int64 [users + 1]
  TypedArray users, items;  // int32 [ptr[users]]: row numbers
};
TOPKNOT_FIELDS(CandidatePairs, ptr, users, items)

struct RankedCandidates {
  Tensor ids;      // int32 [users, k], -1 where a user has fewer candidates
  TypedArray auc;  // float64 [users], NaN where a user lacks test items or others
};
TOPKNOT_FIELDS(RankedCandidates, ids, auc)

struct RatingErrors {
  double squared, absolute;           // sums over the entries
  std::optional<TypedArray> perUser;  // float64 [2 * users]: root mean squared, then mean absolute error
};
TOPKNOT_FIELDS(RatingErrors, squared, absolute, perUser)

}  // namespace topknot
