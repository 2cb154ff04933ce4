// Searches of the approximate index: through the graph, or past all items that may be returned where they are few.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <shared_mutex>

#include "cpu/kernels/pair_score.h"
#include "ops/hnsw_index.h"

namespace topknot {

/// What one search may return, as one look at the index sees it.
struct HnswIndex::Allowed {
  const HnswIndex& index;
  HnswFilter filter;
  int64_t count = 0;      // items that may be returned
  bool everyNode = true;  // no node of the graph is excluded
  bool narrow = false;    // so few items that looking at each of them is quicker than the graph

  Allowed(const HnswIndex& i, const std::optional<Tensor>& bits, int64_t expansion) : index(i), filter{i.keys_.data()} {
    const int64_t nodes = i.graph_.size();
    count = i.count_;
    if (bits) {
      filter.allowed = reinterpret_cast<const uint64_t*>(bits->data<int64_t>());
      filter.count = bits->count() * 64;
      count = 0;
      for (size_t w = 0; w < words(); ++w) count += std::popcount(word(w));
    }
    everyNode = count == nodes;
    // A filtered search in the graph looks at about expansion * nodes / count candidates and their neighbours.
    narrow = static_cast<double>(count) * static_cast<double>(count) <
             static_cast<double>(nodes) * static_cast<double>(expansion) * 4;
  }
  size_t words() const {
    const size_t all = index.live_.size();
    return filter.allowed ? std::min(all, static_cast<size_t>(filter.count / 64)) : all;
  }
  /// The keys 64 w to 64 w + 63 that may be returned.
  uint64_t word(size_t w) const { return index.live_[w] & (filter.allowed ? filter.allowed[w] : ~uint64_t{0}); }
  template <typename F>
  void forEachKey(F&& use) const {
    for (size_t w = 0; w < words(); ++w) {
      for (uint64_t rest = word(w); rest; rest &= rest - 1) use(static_cast<int32_t>(w * 64) + std::countr_zero(rest));
    }
  }
};

/// An answer: the score, higher is better.
struct HnswIndex::Found {
  double score;
  int32_t key;
  bool operator<(const Found& other) const { return score != other.score ? score > other.score : key < other.key; }
};

/// In float64 and in a fixed order, as exact search scores its winners. What is no number, in a damaged file that is
/// mapped, comes last: sorting needs an order.
double HnswIndex::score(const float* query, int32_t slot) const {
  const float* row = rows_.data<float>() + slot * stride_;
  const double score =
      options_.metric == Metric::l2 ? -pairSquaredDistance(query, row, dims_) : pairDot(query, row, dims_);
  return std::isnan(score) ? -std::numeric_limits<double>::infinity() : score;
}

HnswFound HnswIndex::search(Job& job, const Tensor& queries, int64_t k, int64_t expansion,
                            const std::optional<Tensor>& bits) const {
  const int64_t n = queries.rows();
  const Tensor keys = Tensor::host<int32_t>({n, k}), scores = Tensor::host<float>({n, k});
  std::atomic<int64_t> exact{0};
  constexpr int64_t block = 256;  // queries that a change waits for at most
  for (int64_t first = 0; first < n; first += block) {
    const std::shared_lock reading(lock_);
    const Allowed allowed(*this, bits, std::max(expansion, k));
    const HnswVectors all = view();
    const size_t wanted = static_cast<size_t>(std::min(k, allowed.count));
    parallelFor(std::min(block, n - first), 1, job.exec(), [&](int64_t begin, int64_t end, int) {
      const HnswContexts::Lease context(contexts_);
      std::vector<float> row(static_cast<size_t>(width_));
      std::vector<Found> found;
      for (int64_t q = first + begin; q < first + end; ++q) {
        std::copy_n(queries.data<float>() + q * dims_, dims_, row.data());
        scale(row.data());
        found.clear();
        if (expansion > 0 && !allowed.narrow) {
          const HnswFilter* filter = allowed.everyNode ? nullptr : &allowed.filter;
          for (const HnswCandidate& c : graph_.find(all, row.data(), k, expansion, filter, context))
            found.push_back({score(row.data(), c.slot), keys_[static_cast<size_t>(c.slot)]});
        }
        if (found.size() < wanted) {  // also where parts of the graph cannot be reached
          ++exact;
          found.clear();
          allowed.forEachKey([&](int32_t key) {
            found.push_back({score(row.data(), slots_[static_cast<size_t>(key)]), key});
          });
          std::nth_element(found.begin(), found.begin() + static_cast<int64_t>(wanted) - 1, found.end());
          found.resize(wanted);
        }
        std::sort(found.begin(), found.end());
        int32_t* foundKeys = keys.data<int32_t>() + q * k;
        float* foundScores = scores.data<float>() + q * k;
        for (size_t i = 0; i < found.size(); ++i) {
          foundKeys[i] = found[i].key;
          foundScores[i] = static_cast<float>(options_.metric == Metric::l2 ? -found[i].score : found[i].score);
        }
        std::fill(foundKeys + found.size(), foundKeys + k, -1);
        std::fill(foundScores + found.size(), foundScores + k, std::numeric_limits<float>::quiet_NaN());
      }
    });
    job.checkCancelled();
  }
  return {{keys}, {scores}, exact};
}

}  // namespace topknot
