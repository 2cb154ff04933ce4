#include "cpu/kernels/candidates.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace topknot {

namespace {

void moveBestToFront(std::span<Key> keys, int64_t k) {
  if (k < static_cast<int64_t>(keys.size())) {
    std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end(), std::greater<>());
  }
}

}  // namespace

void sortBestFirst(std::span<Key> keys) { std::sort(keys.begin(), keys.end(), std::greater<>()); }

bool admits(const FilterView& filter, int64_t query, int32_t id) {
  if (filter.allowed && !(filter.allowed[id / 64] >> (id % 64) & 1)) return false;
  if (!filter.seenPtr) return true;
  const int64_t row = filter.seenRows ? filter.seenRows[query] : query;
  return !std::binary_search(filter.seenIds + filter.seenPtr[row], filter.seenIds + filter.seenPtr[row + 1], id);
}

int64_t Candidates::capacity(int64_t k, int64_t items) {
  // One more than the items when all fit: a buffer that is never full is never cut.
  return std::min(2 * k + 32, items + 1);
}

Candidates::Candidates(int64_t queries, int64_t padded, int64_t k, int64_t items, const double* slack)
    : k_(k),
      capacity_(capacity(k, items)),
      slack_(slack),
      thresholds_(padded, std::numeric_limits<float>::infinity()),
      sizes_(queries, 0),
      keys_(std::make_unique_for_overwrite<Key[]>(queries * capacity_)) {
  std::fill_n(thresholds_.begin(), queries, std::numeric_limits<float>::quiet_NaN());
}

void Candidates::cut(int64_t query) {
  const std::span<Key> keys = of(query);
  moveBestToFront(keys, k_);
  sizes_[query] = k_;
  raise(query, keys[k_ - 1]);
}

float Candidates::thresholdOf(int64_t query, Key worst) const {
  const double exact = static_cast<double>(scoreOf(worst)) + slack_[query];
  const float threshold = static_cast<float>(exact);
  return threshold > exact ? std::nextafter(threshold, -std::numeric_limits<float>::infinity()) : threshold;
}

void shareThresholds(const Exec& exec, const CandidatesBySlot& kept, int64_t queries, int64_t k) {
  parallelFor(queries, 16, exec, [&](int64_t begin, int64_t end, int) {
    std::vector<Key> best;
    for (int64_t q = begin; q < end; ++q) {
      bestOf(kept, q, k, best);
      if (static_cast<int64_t>(best.size()) < k) continue;
      const Key worst = *std::min_element(best.begin(), best.end());
      for (const auto& candidates : kept) {
        if (candidates) candidates->raise(q, worst);
      }
    }
  });
}

void bestOf(const CandidatesBySlot& kept, int64_t query, int64_t k, std::vector<Key>& best) {
  best.clear();
  for (const auto& candidates : kept) {
    if (candidates) best.insert(best.end(), candidates->of(query).begin(), candidates->of(query).end());
  }
  moveBestToFront(best, k);
  best.resize(std::min<size_t>(best.size(), k));
}

void writeBest(std::span<const Key> best, int64_t k, int32_t* ids, float* scores) {
  const int64_t found = static_cast<int64_t>(best.size());
  for (int64_t j = 0; j < k; ++j) {
    ids[j] = j < found ? idOf(best[j]) : -1;
    scores[j] = j < found ? scoreOf(best[j]) : std::numeric_limits<float>::quiet_NaN();
  }
}

}  // namespace topknot
