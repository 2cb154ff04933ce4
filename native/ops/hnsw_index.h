// An approximate index that changes while it is searched. Its items are called by keys, which the caller counts up from
// 0 and never gives to another item; nodes of the graph lie in slots, which are used again.
//
// A change links its new nodes a few at a time, so that searches wait for milliseconds at most, and nobody sees any of
// them before the whole change is there. What was removed stays in the graph as a signpost until its slot is used
// again.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "core/fair_lock.h"
#include "core/fields.h"
#include "core/job.h"
#include "core/resource.h"
#include "core/tensor.h"
#include "ops/hnsw_graph.h"
#include "ops/types.h"

namespace topknot {

struct HnswOptions {
  Metric metric;
  int64_t connectivity, expansionAdd;
};
TOPKNOT_FIELDS(HnswOptions, metric, connectivity, expansionAdd)

/// All of an index in plain tensors. Keys are numbered anew, from 0, in their old order.
struct HnswState {
  Tensor vectors;  // float32 [slots, d and zeros up to a multiple of vectorStep]; of length 1 for cosine
  Tensor keys;     // int32 [slots]; -1: a signpost
  Tensor graph;    // uint8, as HnswGraph::bytes gives it
  int64_t dimensions = 0;
  double bound = 0;
};
TOPKNOT_FIELDS(HnswState, vectors, keys, graph, dimensions, bound)

/// What a search found. ids holds keys.
struct HnswFound {
  TypedArray ids, scores;
  int64_t exact = 0;  // queries that were compared with every item that might be returned
};
TOPKNOT_FIELDS(HnswFound, ids, scores, exact)

struct HnswCounts {
  int64_t version;  // of the changes that searches see
  int64_t nodes;    // of the graph, signposts among them
};
TOPKNOT_FIELDS(HnswCounts, version, nodes)

/// Hands the contexts of a graph to the threads that search it now.
class HnswContexts {
 public:
  HnswContexts() {
    for (int i = HnswGraph::contexts; i-- > 0;) free_.push_back(i);
  }

  class Lease {
   public:
    explicit Lease(HnswContexts& from) : from_(from), context_(from.take()) {}
    ~Lease() { from_.give(context_); }
    Lease(const Lease&) = delete;
    operator int() const { return context_; }

   private:
    HnswContexts& from_;
    const int context_;
  };

 private:
  int take();
  void give(int context);

  std::mutex mutex_;
  std::condition_variable given_;
  std::vector<int> free_;
};

class HnswIndex final : public Resource {
 public:
  HnswIndex(const HnswOptions& options, int64_t dims);
  /// mapped: `state` lies in a file, where it is left until the first change. Throws ERR_FORMAT for what state() cannot
  /// have given; of a mapped one the vectors are not looked at.
  HnswIndex(Job& job, const HnswOptions& options, const HnswState& state, bool mapped);

  int64_t dims() const { return dims_; }
  int64_t live() const { return count_; }
  /// Read between changes: whether one that was stopped came through.
  HnswCounts counts() const { return {version_, nodes_}; }
  size_t bytes() const override { return bytes_; }

  /// Takes `removed` away and brings `vectors` [n, d] in under `keys`, all of it or nothing. A key in both is updated.
  /// parallel: by all threads, whose order changes the graph; otherwise the same changes give the same graph.
  void change(Job& job, std::span<const int32_t> removed, std::span<const int32_t> keys, const Tensor& vectors,
              bool parallel);
  /// The k nearest of each query as far as the graph finds them, which looks at `expansion` candidates, or, where that
  /// is 0, all of them; bit i % 64 of word i / 64 of `allowed` tells whether key i may be returned.
  HnswFound search(Job& job, const Tensor& queries, int64_t k, int64_t expansion,
                   const std::optional<Tensor>& allowed) const;
  HnswState state(Job& job) const;
  /// An index of the same items without signposts, whose keys are numbered as in state(). This one is as it was.
  std::shared_ptr<HnswIndex> compacted(Job& job, bool parallel) const;

 private:
  struct Allowed;
  struct Found;
  /// Vectors on their way into the graph.
  struct Incoming {
    int64_t count;
    std::function<const float*(int64_t)> vector;
    bool scaled = false;  // of length 1 already, where the metric is cosine
  };
  HnswVectors view() const;
  void scale(float* vector) const;
  void lengthen(float* row) const;
  Tensor rowsOf(Job& job, const Tensor& vectors) const;
  void own(Job& job);
  HnswState copy(Job& job) const;
  double score(const float* query, int32_t slot) const;
  void grow(int64_t slots);
  void insert(Job& job, const Incoming& vectors, bool parallel, std::vector<int32_t>& slots);
  void forget(std::span<const int32_t> slots);
  void count();
  void checkKeys(std::span<const int32_t> removed, std::span<const int32_t> keys) const;
  void publish(std::span<const int32_t> removed, std::span<const int32_t> keys, std::span<const int32_t> slots);

  const HnswOptions options_;
  const int64_t dims_;
  const int64_t width_;  // of a row, as a query is compared with it: dims_ and zeros
  int64_t stride_;       // of a row: width_ where it is mapped, otherwise with room for what lengthen() adds
  HnswGraph graph_;
  Tensor rows_;                 // float32 [capacity, stride], by slot
  std::vector<int32_t> keys_;   // [capacity] the key of each slot; -1: none that may be returned
  std::vector<int32_t> slots_;  // the slot of each key; -1: removed
  std::vector<uint64_t> live_;  // a bit for each key that has a slot
  double bound_ = 0;            // the largest squared length of the vectors that the index began with
  std::vector<int32_t> free_;   // slots to use again, the last one first
  int64_t count_ = 0;           // of live keys
  std::atomic<int64_t> version_{0};
  std::atomic<int64_t> nodes_{0};  // these two are counted anew by every change
  std::atomic<size_t> bytes_{0};

  mutable FairLock lock_;        // of everything above
  mutable std::mutex changing_;  // one change at a time
  mutable HnswContexts contexts_;
};

using Hnsw = std::shared_ptr<HnswIndex>;

struct HnswLoaded {
  Hnsw index;
  int64_t live = 0;
};
TOPKNOT_FIELDS(HnswLoaded, index, live)

}  // namespace topknot
