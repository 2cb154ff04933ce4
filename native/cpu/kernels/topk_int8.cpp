// Top-k by 8-bit codes: the scan picks candidates, whose scores are then computed in float64 from the rows themselves.
//
// A query is brought to length 1 (only the order counts) and to codes of at most ±63, with a step of its own; to ±31
// where nothing is to be proven, which lets two sums of products be added before they are widened. With q
// the query, x an item, q' and x' what their codes stand for: q·x = q'·x' + q·(x - x') + (q - q')·x', so q·x is at most
// q'·x' + |x - x'| + ρ|x'|, ρ being the largest |q - q'| of the call. When `proven` is asked for, candidates are chosen
// by this upper bound instead of by q'·x': where the k-th exact score is above the bound of the worst candidate,
// nothing that was left out can be among the k best.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/kernels/guard.h"
#include "cpu/kernels/int8_codes.h"
#include "cpu/kernels/topk_codes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/topk_int8.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/kernels/topk_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace topknot::HWY_NAMESPACE {
namespace {

constexpr double slack = 0x1p-18;  // times the length of an item: more than the scan's float32 rounding

/// The queries of the call as codes.
struct Int8Queries {
  /// Codes go from -most to most.
  Int8Queries(const Exec& exec, const MatrixView& queries, bool l2, int most)
      : codes(queries.rows * queries.cols),
        lengths(queries.rows),
        starts(queries.rows),
        steps(queries.rows),
        weights(queries.rows) {
    std::vector<double> residuals(queries.rows);
    parallelFor(queries.rows, 64, exec, [&](int64_t begin, int64_t end, int) {
      for (int64_t q = begin; q < end; ++q) {
        const float* x = queries.row(q);
        lengths[q] = std::sqrt(pairDot(x, x, queries.cols));
        const double factor = lengths[q] > 0 ? 1 / lengths[q] : 0;
        const Int8Row row = quantizeRow(x, queries.cols, factor, most, 0, codes.data() + q * queries.cols);
        starts[q] = -128 * row.sum;
        steps[q] = row.scale;
        residuals[q] = row.residual;
        // q·x - |x|²/2 is (|q|² - |q - x|²) / 2; all of it over |q|.
        weights[q] = l2 ? static_cast<float>(0.5 / (lengths[q] > 0 ? lengths[q] : 1)) : 0.0f;
      }
    });
    for (double r : residuals) residual = std::max(residual, r);
  }

  std::vector<int8_t> codes;
  std::vector<double> lengths;
  std::vector<int32_t> starts;
  std::vector<float> steps, weights;
  double residual = 0;  // ρ
};

/// An upper bound of q·x - q'·x' for each item. False: an item is too long for float32 to bound anything.
bool itemBounds(const Exec& exec, const TopkInt8Args& a, double rho, std::vector<float>& bounds,
                std::vector<float>& norms) {
  const bool l2 = a.topk.metric == Metric::l2, unit = a.topk.metric == Metric::cosine;
  std::atomic<bool> known{true};
  parallelFor(a.topk.items.rows, 1 << 14, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const double norm = static_cast<double>(a.topk.itemNorms[i]), residual = static_cast<double>(a.residuals[i]);
      const double length = unit ? 1 + 1e-6 : std::sqrt(norm) * (1 + 1e-6) + 1e-22;
      bounds[i] = static_cast<float>((residual + (rho + slack) * (length + residual)) * (1 + 1e-6));
      if (l2) norms[i] = static_cast<float>(norm * (1 - slack));
      if (!(norm <= static_cast<double>(TopkScan::safeMax))) known = false;
    }
  });
  return known;
}

/// The score that a pair of this upper bound can have at most, rounded as scores are.
float bestPossible(const TopkInt8Args& a, double bound, double length) {
  switch (a.topk.metric) {
    case Metric::innerProduct:
      return static_cast<float>(bound * length * (bound > 0 ? 1 + 1e-9 : 1 - 1e-9));
    case Metric::cosine:
      return static_cast<float>(bound + 1e-9);
    case Metric::l2:
      return static_cast<float>(2 * (length > 0 ? length : 1) * bound - length * length +
                                1e-9 * (length * length + 2 * length * std::fabs(bound)));
  }
  return std::numeric_limits<float>::infinity();
}

void finish(const Exec& exec, const TopkInt8Args& a, const PairScorer& scorer, const Int8Queries& prepared,
            int64_t first, int64_t n, int64_t scanned, bool provable, const CandidatesBySlot& kept) {
  parallelFor(n, 4, exec, [&](int64_t begin, int64_t end, int) {
    std::vector<Key> best;
    for (int64_t local = begin; local < end; ++local) {
      const int64_t query = first + local;
      bestOf(kept, local, a.candidates, best);
      const bool all = static_cast<int64_t>(best.size()) < a.candidates || scanned <= a.candidates;
      double worst = std::numeric_limits<double>::infinity();
      for (Key key : best) worst = std::min(worst, static_cast<double>(scoreOf(key)));
      rescore(exec, scorer, query, best);
      writeTopk(a.topk, query, best);  // sorts
      if (!a.proven) continue;
      const float kth = all ? 0 : scoreOf(best[a.topk.k - 1]);
      a.proven[query] = all || (provable && kth > bestPossible(a, worst, prepared.lengths[query]));
    }
  });
}

}  // namespace

Status topkInt8(const Exec& exec, const TopkInt8Args& a) {
  return guard([&] {
    const TopkArgs& t = a.topk;
    const PairScorer scorer(t);
    const bool l2 = t.metric == Metric::l2;
    const Int8Queries prepared(exec, t.queries, l2, a.proven ? 63 : 31);
    std::vector<float> bounds, norms;
    bool provable = false;
    if (a.proven) {
      bounds.resize(t.items.rows);
      norms.resize(l2 ? t.items.rows : 0);
      provable = itemBounds(exec, a, prepared.residual, bounds, norms);
    }
    const float* itemNorms = !l2 ? nullptr : a.proven ? norms.data() : t.itemNorms;
    const CodesScan scan{a.codes,
                         t.items.rows,
                         t.items.cols,
                         t.filter,
                         ScanItems(t.filter, t.items.rows),
                         a.scales,
                         a.proven ? bounds.data() : nullptr,
                         itemNorms};
    const int64_t step = codeBlockQueries(a.candidates, t.items.rows, t.items.cols);
    const std::vector<double> shifts(step, 0.0);
    for (int64_t first = 0; first < t.queries.rows && !exec.cancelled(); first += step) {
      const int64_t n = std::min(step, t.queries.rows - first);
      const auto padded = [&](const auto& values) {
        auto out = values;
        out.assign(values.begin() + first, values.begin() + first + n);
        out.resize(n + 2 * lanes);
        return out;
      };
      const auto starts = padded(prepared.starts);
      const auto steps = padded(prepared.steps), weights = padded(prepared.weights);
      const CodesBlock block{scan, first, n, nullptr, starts.data(), steps.data(), weights.data()};
      const auto bytesOf = [&](int64_t q) {
        return reinterpret_cast<const uint8_t*>(prepared.codes.data() + q * t.items.cols);
      };
      const auto scanned = [&]<class Sum, CodeScore kind>() {
        return scanCodes<Sum, kind>(exec, block, t.queries.rows, a.candidates, shifts.data(), bytesOf);
      };
      const CandidatesBySlot kept = a.proven ? scanned.template operator()<DotSum<1>, CodeScore::bounded>()
                                    : l2     ? scanned.template operator()<DotSum<2>, CodeScore::bounded>()
                                             : scanned.template operator()<DotSum<2>, CodeScore::scaled>();
      if (exec.cancelled()) return;
      finish(exec, a, scorer, prepared, first, n, scan.items.count, provable, kept);
    }
  });
}

}  // namespace topknot::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
