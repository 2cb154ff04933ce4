// An approximate index that changes while it is searched. Its items are called by keys, which the caller counts up from
// 0 and never gives to another item; nodes of the graph lie in slots, which are used again.
//
// A change links its new nodes a few at a time, so that searches wait for milliseconds at most, and nobody sees any of
// them before the whole change is there. What was removed stays in the graph as a signpost until its slot is used
// again.
#pragma once
#include <atomic>
#include <condition_variable>
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
  Tensor vectors;                     // float32 [slots, d]; of length 1 for cosine
  Tensor keys;                        // int32 [slots]; -1: a signpost
  Tensor levels, counts, neighbours;  // int32, as in HnswLinks
  int64_t entry = 0;
  double bound = 0;
};
TOPKNOT_FIELDS(HnswState, vectors, keys, levels, counts, neighbours, entry, bound)

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
  /// Throws ERR_FORMAT for what state() cannot have given.
  HnswIndex(const HnswOptions& options, const HnswState& state);

  int64_t dims() const { return dims_; }
  int64_t live() const { return count_; }
  /// Counts the changes that searches see: whether one that was stopped came through. Read between changes.
  int64_t version() const { return version_; }
  size_t bytes() const override { return bytes_; }

  /// Takes `removed` away and brings `vectors` [n, d] in under `keys`, all of it or nothing. A key in both is updated.
  /// parallel: by all threads, whose order changes the graph; otherwise the same changes give the same graph.
  void change(Job& job, std::span<const int32_t> removed, std::span<const int32_t> keys, const Tensor& vectors,
              bool parallel);
  /// The k nearest of each query as far as the graph finds them, which looks at `expansion` candidates; bit i % 64 of
  /// word i / 64 of `allowed` tells whether key i may be returned. ids holds keys.
  TopkResult search(Job& job, const Tensor& queries, int64_t k, int64_t expansion,
                    const std::optional<Tensor>& allowed) const;
  HnswState state(Job& job) const;

 private:
  struct Allowed;
  struct Found;
  HnswVectors view() const;
  void fill(const float* vector, float* row) const;
  void lengthen(float* row) const;
  double score(const float* query, int32_t slot) const;
  void grow(int64_t slots);
  void insert(Job& job, const Tensor& vectors, bool parallel, std::vector<int32_t>& slots);
  void forget(std::span<const int32_t> slots);
  void countBytes() { bytes_ = rows_.bytes() + graph_.bytes() + keys_.size() * 8; }
  void checkKeys(std::span<const int32_t> removed, std::span<const int32_t> keys) const;
  void publish(std::span<const int32_t> removed, std::span<const int32_t> keys, std::span<const int32_t> slots);

  const HnswOptions options_;
  const int64_t dims_, stride_;
  HnswGraph graph_;
  Tensor rows_;                 // float32 [capacity, stride], by slot
  std::vector<int32_t> keys_;   // [capacity] the key of each slot; -1: none that may be returned
  std::vector<int32_t> slots_;  // the slot of each key; -1: removed
  std::vector<uint64_t> live_;  // a bit for each key that has a slot
  double bound_ = 0;            // the largest squared length of the vectors that the index began with
  std::vector<int32_t> free_;   // slots to use again, the last one first
  int64_t count_ = 0;           // of live keys
  std::atomic<int64_t> version_{0};
  std::atomic<size_t> bytes_{0};  // counted anew by every change

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
