#include "cpu/kernels/topk_scan.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "cpu/kernels/pair_score.h"

namespace topknot {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

bool safe(double squaredNorm) { return squaredNorm >= TopkScan::safeMin && squaredNorm <= TopkScan::safeMax; }

int64_t countAllowed(const FilterView& filter, int64_t items) {
  int64_t n = 0;
  for (int64_t w = 0; w < items / 64; ++w) n += std::popcount(filter.allowed[w]);
  if (items % 64) n += std::popcount(filter.allowed[items / 64] & ((uint64_t{1} << items % 64) - 1));
  return n;
}

}  // namespace

ScanItems::ScanItems(const FilterView& filter, int64_t rows) : count(rows) {
  if (!filter.allowed) return;
  // Gathered rows are read at about half the speed of adjacent ones, and testing survivors is nearly free.
  const int64_t allowed = countAllowed(filter, rows);
  if (allowed >= rows / 3) return;
  count = allowed;
  list_.reserve(allowed);
  for (int64_t i = 0; i < rows && allowed > 0; ++i) {
    if (filter.allowed[i / 64] >> (i % 64) & 1) list_.push_back(static_cast<int32_t>(i));
  }
}

PairScorer::PairScorer(const TopkArgs& args) : args_(args) {
  if (args.metric == Metric::innerProduct) return;
  queryNorms_.resize(args.queries.rows);
  for (int64_t q = 0; q < args.queries.rows; ++q) {
    queryNorms_[q] = pairDot(args.queries.row(q), args.queries.row(q), args.queries.cols);
  }
}

double PairScorer::score(int64_t query, int32_t item) const {
  const float* q = args_.queries.row(query);
  const int64_t dims = args_.items.cols;
  return withRow(args_.items, item, [&](auto x) -> double {
    switch (args_.metric) {
      case Metric::innerProduct:
        return pairDot(q, x, dims);
      case Metric::cosine:
        return args_.itemNorms[item] == 0 ? 0 : pairCosine(q, queryNorms_[query], x, dims);
      case Metric::l2:
        return -pairSquaredDistance(q, x, dims);
    }
    return nan;
  });
}

void writeTopk(const TopkArgs& args, int64_t query, std::span<Key> best) {
  sortBestFirst(best);
  float* scores = args.scores + query * args.k;
  writeBest(best.first(std::min<size_t>(best.size(), args.k)), args.k, args.ids + query * args.k, scores);
  if (args.metric == Metric::l2) {
    for (int64_t j = 0; j < args.k; ++j) scores[j] = 0 - scores[j];
  }
}

void rescore(const Exec& exec, const PairScorer& scorer, int64_t query, std::span<Key> keys) {
  parallelFor(static_cast<int64_t>(keys.size()), 4096, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t j = begin; j < end; ++j) {
      const int32_t item = idOf(keys[j]);
      keys[j] = keyOf(scorer.rounded(query, item), item);
    }
  });
}

TopkScan::TopkScan(const TopkArgs& a) : args(a), items(a.filter, a.items.rows), scorer(a) {
  const int64_t dims = a.items.cols;
  gamma_ = static_cast<double>(dims + 8) * 0x1p-24;
  shifts_.assign(a.queries.rows, 0.0);
  if (!affine()) return;
  queryScales_.resize(a.queries.rows);
  for (int64_t q = 0; q < a.queries.rows; ++q) {
    const double norm = scorer.queryNorm(q);
    if (a.metric == Metric::cosine) {
      // |scan score - cosine| <= 2 gamma: the rounding of the scaled query, the dot product and the item's norm.
      queryScales_[q] = safe(norm) ? static_cast<float>(1 / std::sqrt(norm)) : norm == 0 ? 0.0f : nan;
      shifts_[q] = norm == 0 ? 0 : -2 * gamma_;
    } else {
      // With D the squared distance and n = |x|²: the scan score is at least |q|² - D + 4 gamma n - 2 gamma |q|²
      // (the first gammas from normShare(), the others are rounding, 2|q||x| being at most |q|² + n), and the
      // float32 nearest to D is at least D - gamma (|q|² + n) / 2. So a scan score of at most
      // |q|² (1 - 4 gamma) - D_k implies D >= D_k.
      queryScales_[q] = norm <= safeMax ? 2.0f : nan;
      shifts_[q] = norm * (1 - 4 * gamma_) - static_cast<double>(dims + 4) * FLT_MIN;
    }
  }
}

float TopkScan::normShare() const { return gamma_ < 0.01 ? static_cast<float>(1 - 8 * gamma_) : nan; }

void TopkScan::offer(Candidates& candidates, int64_t query, int64_t local, int64_t j, float scanScore) const {
  const int32_t item = items.at(j);
  if (!admits(args.filter, query, item)) return;
  candidates.push(local, keyOf(affine() ? scorer.rounded(query, item) : scanScore, item));
}

void TopkScan::finish(const Exec& exec, int64_t first, int64_t n, const CandidatesBySlot& kept) const {
  parallelFor(n, 16, exec, [&](int64_t begin, int64_t end, int) {
    std::vector<Key> best;
    for (int64_t local = begin; local < end; ++local) {
      bestOf(kept, local, args.k, best);
      if (!affine()) rescore(exec, scorer, first + local, best);
      writeTopk(args, first + local, best);
    }
  });
}

}  // namespace topknot
