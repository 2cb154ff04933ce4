#include "ops/hnsw_index.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <shared_mutex>
#include <utility>

#include "backend/registry.h"
#include "cpu/kernels/pair_score.h"

namespace topknot {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// Numbers in a row: inner product has one more coordinate.
int64_t strideOf(Metric metric, int64_t dims) {
  const int64_t used = metric == Metric::innerProduct ? dims + 1 : dims;
  return (used + vectorStep - 1) / vectorStep * vectorStep;
}

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
    : options_(options), dims_(dims), stride_(strideOf(options.metric, dims)), graph_(options.connectivity) {}

HnswVectors HnswIndex::view() const {
  HnswVectors vectors{rows_.data<float>(), stride_, nullptr, nullptr};
  const bool cosine = options_.metric == Metric::cosine;
  for (const VectorDistanceArgs& args : {VectorDistanceArgs{cosine ? Metric::cosine : Metric::l2, &vectors.between},
                                         VectorDistanceArgs{options_.metric, &vectors.toQuery}})
    run(cpuBackend(), &Backend::vectorDistance, "vectorDistance", Exec{}, args);
  return vectors;
}

/// A query as it is compared: padded with zeros, and of length 1 for cosine (a zero vector stays zero).
void HnswIndex::fill(const float* vector, float* row) const {
  std::copy_n(vector, dims_, row);
  std::fill(row + dims_, row + stride_, 0.0f);
  if (options_.metric != Metric::cosine) return;
  const double length = std::sqrt(pairDot(vector, vector, dims_));
  if (length == 0) return;
  for (int64_t i = 0; i < dims_; ++i) row[i] = static_cast<float>(static_cast<double>(vector[i]) / length);
}

/// Makes the row of an item, filled, as long as `bound_` says.
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
void HnswIndex::insert(Job& job, const Tensor& vectors, bool parallel, std::vector<int32_t>& slots) {
  if (graph_.size() == 0) {
    for (int64_t i = 0; i < vectors.rows(); ++i) {
      const float* vector = vectors.data<float>() + i * dims_;
      bound_ = std::max(bound_, pairDot(vector, vector, dims_));
    }
  }
  const int64_t n = vectors.rows(), again = std::min(n, static_cast<int64_t>(free_.size()));
  grow(graph_.size() + n - again);
  // Vectors linked at a time: a few milliseconds' worth where searches may be waiting.
  const int64_t step = (parallel ? 64 : 16) * (count_ > 0 ? 1 : 16);
  for (int64_t begin = 0; begin < n;) {
    job.checkCancelled();
    job.progress({static_cast<double>(begin), static_cast<double>(n), nan});
    // The first node of a graph is put there alone, and a step links either new nodes or old ones.
    const int64_t end = graph_.size() == 0 ? 1 : std::min(begin < again ? again : n, begin + step);
    const Tensor rows = Tensor::host<float>({end - begin, stride_});
    for (int64_t i = begin; i < end; ++i) {
      float* row = rows.data<float>() + (i - begin) * stride_;
      fill(vectors.data<float>() + i * dims_, row);
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
  countBytes();
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
  std::vector<int32_t> slots;
  try {
    insert(job, vectors, parallel, slots);
    publish(removed, keys, slots);
  } catch (...) {
    forget(slots);
    throw;
  }
}

// ---- Search

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

/// In float64 and in a fixed order, as exact search scores its winners.
double HnswIndex::score(const float* query, int32_t slot) const {
  const float* row = rows_.data<float>() + slot * stride_;
  return options_.metric == Metric::l2 ? -pairSquaredDistance(query, row, dims_) : pairDot(query, row, dims_);
}

TopkResult HnswIndex::search(Job& job, const Tensor& queries, int64_t k, int64_t expansion,
                             const std::optional<Tensor>& bits) const {
  const int64_t n = queries.rows();
  TopkResult out{Tensor::host<int32_t>({n, k}), Tensor::host<float>({n, k})};
  constexpr int64_t block = 256;  // queries that a change waits for at most
  for (int64_t first = 0; first < n; first += block) {
    const std::shared_lock reading(lock_);
    const Allowed allowed(*this, bits, std::max(expansion, k));
    const HnswVectors all = view();
    const size_t wanted = static_cast<size_t>(std::min(k, allowed.count));
    parallelFor(std::min(block, n - first), 1, job.exec(), [&](int64_t begin, int64_t end, int) {
      const HnswContexts::Lease context(contexts_);
      std::vector<float> row(static_cast<size_t>(stride_));
      std::vector<Found> found;
      for (int64_t q = first + begin; q < first + end; ++q) {
        fill(queries.data<float>() + q * dims_, row.data());
        found.clear();
        if (!allowed.narrow) {
          const HnswFilter* filter = allowed.everyNode ? nullptr : &allowed.filter;
          for (const HnswCandidate& c : graph_.find(all, row.data(), k, expansion, filter, context))
            found.push_back({score(row.data(), c.slot), keys_[static_cast<size_t>(c.slot)]});
        }
        if (found.size() < wanted) {  // also where parts of the graph cannot be reached
          found.clear();
          allowed.forEachKey([&](int32_t key) {
            found.push_back({score(row.data(), slots_[static_cast<size_t>(key)]), key});
          });
          std::nth_element(found.begin(), found.begin() + static_cast<int64_t>(wanted) - 1, found.end());
          found.resize(wanted);
        }
        std::sort(found.begin(), found.end());
        int32_t* ids = out.ids.data<int32_t>() + q * k;
        float* scores = out.scores.data<float>() + q * k;
        for (size_t i = 0; i < found.size(); ++i) {
          ids[i] = found[i].key;
          scores[i] = static_cast<float>(options_.metric == Metric::l2 ? -found[i].score : found[i].score);
        }
        std::fill(ids + found.size(), ids + k, -1);
        std::fill(scores + found.size(), scores + k, std::numeric_limits<float>::quiet_NaN());
      }
    });
    job.checkCancelled();
  }
  return out;
}

// ---- Files

namespace {

Tensor asTensor(const std::vector<int32_t>& values) {
  Tensor t = Tensor::host<int32_t>({static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.data<int32_t>());
  return t;
}

std::vector<int32_t> asVector(const Tensor& t, const char* name) {
  expect(t, name, DType::int32, 1);
  return {t.data<int32_t>(), t.data<int32_t>() + t.count()};
}

}  // namespace

HnswState HnswIndex::state(Job& job) const {
  const std::lock_guard hold(changing_);
  const std::shared_lock reading(lock_);
  const int64_t n = graph_.size();
  HnswState out;
  const HnswLinks links = graph_.links();
  job.checkCancelled();
  out.vectors = Tensor::host<float>({n, dims_});
  out.keys = Tensor::host<int32_t>({n});
  parallelFor(n, 4096, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      std::copy_n(rows_.data<float>() + i * stride_, dims_, out.vectors.data<float>() + i * dims_);
  });
  job.checkCancelled();
  std::fill_n(out.keys.data<int32_t>(), n, -1);
  int32_t next = 0;
  for (int32_t slot : slots_) {
    if (slot >= 0) out.keys.data<int32_t>()[slot] = next++;
  }
  out.levels = asTensor(links.levels);
  out.counts = asTensor(links.counts);
  out.neighbours = asTensor(links.neighbours);
  out.entry = links.entry;
  out.bound = bound_;
  return out;
}

HnswIndex::HnswIndex(const HnswOptions& options, const HnswState& state)
    : options_(options),
      dims_(state.vectors.cols()),
      stride_(strideOf(options.metric, dims_)),
      graph_(options.connectivity,
             HnswLinks{static_cast<int32_t>(state.entry), asVector(state.levels, "levels"),
                       asVector(state.counts, "counts"), asVector(state.neighbours, "neighbours")}),
      rows_(Tensor::host<float>({graph_.size(), stride_})),
      keys_(asVector(state.keys, "keys")),
      bound_(state.bound) {
  const int64_t n = graph_.size();
  require(state.vectors.rows() == n && static_cast<int64_t>(keys_.size()) == n, ErrorCode::format,
          "graph: expected vectors and keys for its ", n, " nodes but received ", state.vectors.rows(), " and ",
          static_cast<int64_t>(keys_.size()));
  for (int64_t slot = 0; slot < n; ++slot) {
    float* row = rows_.data<float>() + slot * stride_;
    std::copy_n(state.vectors.data<float>() + slot * dims_, dims_, row);
    std::fill(row + dims_, row + stride_, 0.0f);
    lengthen(row);
  }
  slots_.assign(static_cast<size_t>(n), -1);
  for (int64_t slot = n; slot-- > 0;) {
    const int32_t key = keys_[static_cast<size_t>(slot)];
    require(key >= -1 && key < n && (key < 0 || slots_[static_cast<size_t>(key)] < 0), ErrorCode::format, "keys: node ",
            slot, " has key ", key, ", which is not one of its own");
    if (key < 0) {
      free_.push_back(static_cast<int32_t>(slot));
    } else {
      slots_[static_cast<size_t>(key)] = static_cast<int32_t>(slot);
      ++count_;
    }
  }
  slots_.resize(static_cast<size_t>(count_));
  live_.assign(slots_.size() / 64 + 1, 0);
  for (int64_t key = 0; key < count_; ++key) {
    require(slots_[static_cast<size_t>(key)] >= 0, ErrorCode::format, "keys: none of the nodes has key ", key);
    live_[static_cast<size_t>(key) / 64] |= uint64_t{1} << (key % 64);
  }
  countBytes();
}

}  // namespace topknot
