#include "ops/hnsw_index.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "backend/registry.h"
#include "cpu/kernels/pair_score.h"

namespace topknot {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

int64_t padded(int64_t numbers) { return (numbers + vectorStep - 1) / vectorStep * vectorStep; }

}  // namespace

int HnswContexts::take() {
  std::unique_lock hold(mutex_);
  given_.wait(hold, [&] { return !free_.empty(); });
  const int context = free_.back();
  free_.pop_back();
  return context;
}

void HnswContexts::give(int context) {
  const std::lock_guard hold(mutex_);
  free_.push_back(context);
  given_.notify_one();
}

HnswIndex::HnswIndex(const HnswOptions& options, int64_t dims)
    : options_(options),
      dims_(dims),
      width_(padded(dims)),
      stride_(options.metric == Metric::innerProduct ? padded(dims + 1) : width_),
      graph_(options.connectivity),
      rows_(Tensor::host<float>({0, stride_})) {}

HnswVectors HnswIndex::view() const {
  HnswVectors vectors{rows_.data<float>(), stride_, width_, nullptr, nullptr};
  const bool cosine = options_.metric == Metric::cosine;
  for (const VectorDistanceArgs& args : {VectorDistanceArgs{cosine ? Metric::cosine : Metric::l2, &vectors.between},
                                         VectorDistanceArgs{options_.metric, &vectors.toQuery}})
    run(cpuBackend(), &Backend::vectorDistance, "vectorDistance", Exec{}, args);
  return vectors;
}

/// For cosine: to length 1. A zero vector stays zero.
void HnswIndex::scale(float* vector) const {
  if (options_.metric != Metric::cosine) return;
  const double length = std::sqrt(pairDot(vector, vector, dims_));
  if (length == 0) return;
  for (int64_t i = 0; i < dims_; ++i) vector[i] = static_cast<float>(static_cast<double>(vector[i]) / length);
}

/// For inner product: makes the row of an item as long as `bound_` says, by one more coordinate. All are equally far
/// from zero then, so that the nearest are those with the largest product.
void HnswIndex::lengthen(float* row) const {
  if (options_.metric != Metric::innerProduct) return;
  const double missing = std::sqrt(std::max(0.0, bound_ - pairDot(row, row, dims_)));
  row[dims_] = static_cast<float>(std::min(missing, static_cast<double>(std::numeric_limits<float>::max())));
}

// ---- Changes

/// Makes room for so many slots. Searches go on while the rows are copied.
void HnswIndex::grow(int64_t slots) {
  if (slots <= graph_.capacity()) return;
  require(slots <= INT32_MAX, ErrorCode::range, "vectors: expected at most 2147483647 in an index but received ",
          slots);
  const int64_t used = graph_.size();
  const int64_t capacity = used == 0 ? slots : std::max(slots, std::min<int64_t>(used + used / 2, INT32_MAX));
  const Tensor rows = Tensor::host<float>({capacity, stride_});
  if (used) std::memcpy(rows.data<float>(), rows_.data<float>(), static_cast<size_t>(used * stride_) * sizeof(float));
  const std::lock_guard alone(lock_);
  keys_.resize(static_cast<size_t>(capacity), -1);
  graph_.reserve(capacity);
  rows_ = rows;
}

/// Links the vectors into the graph, where nobody sees them yet. `slots` tells where, as far as it came.
void HnswIndex::insert(Job& job, const Incoming& vectors, bool parallel, std::vector<int32_t>& slots) {
  const int64_t n = vectors.count;
  if (graph_.size() == 0 && options_.metric == Metric::innerProduct) {
    for (int64_t i = 0; i < n; ++i) bound_ = std::max(bound_, pairDot(vectors.vector(i), vectors.vector(i), dims_));
  }
  const int64_t again = std::min(n, static_cast<int64_t>(free_.size()));
  grow(graph_.size() + n - again);
  // Vectors linked at a time: a few milliseconds' worth where searches may be waiting.
  const int64_t step = (parallel ? 64 : 16) * (count_ > 0 ? 1 : 16);
  for (int64_t begin = 0; begin < n;) {
    job.checkCancelled();
    job.progress({static_cast<double>(begin), static_cast<double>(n), nan});
    // The first node of a graph is put there alone, and a step links either new nodes or old ones.
    const int64_t end = graph_.size() == 0 ? 1 : std::min(begin < again ? again : n, begin + step);
    const Tensor rows = Tensor::host<float>({end - begin, stride_}, true);
    for (int64_t i = begin; i < end; ++i) {
      float* row = rows.data<float>() + (i - begin) * stride_;
      std::copy_n(vectors.vector(i), dims_, row);
      if (!vectors.scaled) scale(row);
      lengthen(row);
    }

    const std::lock_guard alone(lock_);
    const HnswVectors all = view();
    const int64_t before = static_cast<int64_t>(slots.size());
    slots.resize(static_cast<size_t>(end), -1);
    for (int64_t i = begin; i < std::min(end, again); ++i) {
      slots[static_cast<size_t>(i)] = free_.back();
      free_.pop_back();
      std::copy_n(rows.data<float>() + (i - begin) * stride_, stride_, all.row(slots[static_cast<size_t>(i)]));
    }
    const auto link = [&](int64_t i, int context) {
      int32_t& slot = slots[static_cast<size_t>(i)];
      if (slot >= 0) {
        graph_.relink(all, slot, options_.expansionAdd, context);
      } else {
        slot = graph_.add(all, rows.data<float>() + (i - begin) * stride_, options_.expansionAdd, context);
      }
    };
    if (parallel) {
      parallelFor(end - before, 1, job.exec(), [&](int64_t from, int64_t to, int) {
        const HnswContexts::Lease context(contexts_);
        for (int64_t i = from; i < to; ++i) link(before + i, context);
      });
    } else {
      for (int64_t i = begin; i < end; ++i) link(i, 0);
    }
    begin = end;
  }
  job.checkCancelled();
}

/// Slots whose vectors nobody shall see: for the next change.
void HnswIndex::forget(std::span<const int32_t> slots) {
  const std::lock_guard alone(lock_);
  for (int32_t slot : slots) {
    if (slot >= 0) free_.push_back(slot);
  }
  count();
}

void HnswIndex::count() {
  nodes_ = graph_.size();
  bytes_ = rows_.buffer->ownBytes() + graph_.memory() + keys_.size() * 8;
}

/// The moment from which searches see the change.
void HnswIndex::publish(std::span<const int32_t> removed, std::span<const int32_t> keys,
                        std::span<const int32_t> slots) {
  int32_t most = -1;
  for (int32_t key : keys) most = std::max(most, key);
  const std::lock_guard alone(lock_);
  // Whatever may fail for want of memory comes first: from the first change on, nothing does.
  const size_t names = std::max(slots_.size(), static_cast<size_t>(most + 1)), freed = free_.size() + removed.size();
  if (live_.size() <= names / 64) live_.resize(names / 64 + 1, 0);
  if (slots_.size() < names) slots_.resize(names, -1);
  if (free_.capacity() < freed) free_.reserve(std::max(freed, 2 * free_.capacity()));
  for (int32_t key : removed) {
    const int32_t slot = std::exchange(slots_[static_cast<size_t>(key)], -1);
    keys_[static_cast<size_t>(slot)] = -1;
    live_[static_cast<size_t>(key) / 64] &= ~(uint64_t{1} << (key % 64));
    free_.push_back(slot);
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    slots_[static_cast<size_t>(keys[i])] = slots[i];
    keys_[static_cast<size_t>(slots[i])] = keys[i];
    live_[static_cast<size_t>(keys[i]) / 64] |= uint64_t{1} << (keys[i] % 64);
  }
  count_ += static_cast<int64_t>(keys.size()) - static_cast<int64_t>(removed.size());
  ++version_;
  count();
}

/// Every key once, those taken out being there, those brought in not being there unless they are taken out too.
void HnswIndex::checkKeys(std::span<const int32_t> removed, std::span<const int32_t> keys) const {
  const auto sorted = [](std::span<const int32_t> from, const char* name) {
    std::vector<int32_t> out(from.begin(), from.end());
    std::sort(out.begin(), out.end());
    const auto twice = std::adjacent_find(out.begin(), out.end());
    require(twice == out.end(), ErrorCode::value, name, ": key ", twice == out.end() ? 0 : *twice, " comes twice");
    return out;
  };
  const auto live = [this](int32_t key) {
    return key >= 0 && key < static_cast<int64_t>(slots_.size()) && slots_[static_cast<size_t>(key)] >= 0;
  };
  const std::vector<int32_t> gone = sorted(removed, "removed"), fresh = sorted(keys, "keys");
  for (int32_t key : gone) require(live(key), ErrorCode::range, "removed: there is no item with key ", key);
  for (int32_t key : fresh) {
    require(!live(key) || std::binary_search(gone.begin(), gone.end(), key), ErrorCode::value,
            "keys: there is an item with key ", key, " already");
  }
}

void HnswIndex::change(Job& job, std::span<const int32_t> removed, std::span<const int32_t> keys, const Tensor& vectors,
                       bool parallel) {
  const std::lock_guard hold(changing_);
  checkKeys(removed, keys);
  own(job);
  std::vector<int32_t> slots;
  try {
    const float* first = vectors.data<float>();
    insert(job, {vectors.rows(), [&](int64_t i) { return first + i * dims_; }}, parallel, slots);
    publish(removed, keys, slots);
  } catch (...) {
    forget(slots);
    throw;
  }
}

}  // namespace topknot
