// Selection of the k best: candidates wait in a buffer for each query; a full buffer is cut back to its k best, and
// the worst of these is the threshold that later items must beat.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "backend/topk_args.h"
#include "core/thread_pool.h"

namespace topknot {

/// A score and an id in one integer: the greater key is the better candidate (higher score, then lower id). NaN
/// ranks below everything; -0 is 0.
using Key = uint64_t;

inline Key keyOf(float score, int32_t id) {
  uint32_t bits = std::bit_cast<uint32_t>(score);
  if (bits == 0x80000000u) bits = 0;
  const uint32_t rising = score != score ? 0 : bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
  return static_cast<Key>(rising) << 32 | static_cast<uint32_t>(~id);
}

inline float scoreOf(Key key) {
  const uint32_t rising = static_cast<uint32_t>(key >> 32);
  if (rising == 0) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(rising ^ (rising >> 31 ? 0x80000000u : 0xffffffffu));
}

inline int32_t idOf(Key key) { return static_cast<int32_t>(~static_cast<uint32_t>(key)); }

/// Sorts best first.
void sortBestFirst(std::span<Key> keys);

/// Whether item `id` may be returned for query `query`.
bool admits(const FilterView& filter, int64_t query, int32_t id);

/// Cache-line aligned floats, uninitialised.
class AlignedFloats {
 public:
  explicit AlignedFloats(int64_t count)
      : data_(static_cast<float*>(std::aligned_alloc(64, (static_cast<size_t>(count) * 4 + 127) / 64 * 64))) {
    if (!data_) throw std::bad_alloc();
  }
  float* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(float* data) const { std::free(data); }
  };
  std::unique_ptr<float, Free> data_;
};

/// The candidates of a block of queries, as seen by one thread. Ids must come in rising order for each query, so that
/// an item that only equals the threshold can be dropped.
class Candidates {
 public:
  /// Keeps the k best of at most `items` items for each of `queries` queries. `padded` >= queries thresholds are
  /// readable; the padding admits nothing. A threshold is the k-th best score plus slack[q], rounded down.
  Candidates(int64_t queries, int64_t padded, int64_t k, int64_t items, const double* slack);

  /// Buffer entries for one query: what a Candidates object costs in memory, 8 bytes each.
  static int64_t capacity(int64_t k, int64_t items);

  /// An item whose scan score is <= its query's threshold is none of the k best. NaN: everything passes.
  const float* thresholds() const { return thresholds_.data(); }

  void push(int64_t query, Key key) {
    Key* keys = keys_.get() + query * capacity_;
    keys[sizes_[query]] = key;
    if (++sizes_[query] == capacity_) cut(query);
  }
  /// Another thread's or an earlier scan's: k items that come before all that are still to be pushed are at least as
  /// good as `worst`.
  void raise(int64_t query, Key worst) {
    thresholds_[query] = std::fmax(thresholds_[query], thresholdOf(query, worst));
  }
  /// Forgets the candidates of a query, for another to take its place.
  void restart(int64_t query) {
    sizes_[query] = 0;
    thresholds_[query] = std::numeric_limits<float>::quiet_NaN();
  }
  std::span<Key> of(int64_t query) const {
    return {keys_.get() + query * capacity_, static_cast<size_t>(sizes_[query])};
  }

 private:
  void cut(int64_t query);
  float thresholdOf(int64_t query, Key worst) const;

  int64_t k_, capacity_;
  const double* slack_;
  std::vector<float> thresholds_;
  std::vector<int64_t> sizes_;
  std::unique_ptr<Key[]> keys_;
};

/// One for each slot of a parallelFor; null: that slot took no part.
using CandidatesBySlot = std::vector<std::unique_ptr<Candidates>>;

/// Raises every slot's threshold of each query to that of the k best of all slots.
void shareThresholds(const Exec& exec, const CandidatesBySlot& kept, int64_t queries, int64_t k);

/// The k best of what all slots kept for a query, in no order; fewer when there are fewer.
void bestOf(const CandidatesBySlot& kept, int64_t query, int64_t k, std::vector<Key>& best);

/// Calls scan(begin, end, slot) for chunks of at most `grain` items that cover [0, items), in phases each twice as long
/// as all before it. After each the threads take over the threshold of what all have kept: alone, each would keep the k
/// best of its own share. `grain` is a multiple of `whole`.
template <typename F>
void scanInPhases(const Exec& exec, int64_t items, int64_t grain, int64_t whole, int64_t k, int64_t queries,
                  const CandidatesBySlot& kept, F&& scan) {
  for (int64_t begin = 0, end = 0; begin < items && !exec.cancelled(); begin = end) {
    end = std::min(items, begin == 0 ? std::max(8 * whole, (4 * k + whole - 1) / whole * whole) : 3 * begin);
    const int64_t share = ((end - begin) / (4 * threadCount()) / whole + 1) * whole;
    parallelFor(end - begin, std::min(grain, share), exec,
                [&](int64_t from, int64_t to, int slot) { scan(begin + from, begin + to, slot); });
    if (end < items) shareThresholds(exec, kept, queries, k);
  }
}

/// Writes k ids and scores: the sorted `best`, then -1 and NaN.
void writeBest(std::span<const Key> best, int64_t k, int32_t* ids, float* scores);

}  // namespace topknot
