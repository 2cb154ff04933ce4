// The graph of an approximate index (Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search
// using hierarchical navigable small world graphs"). The graph itself is usearch's index_gt, a C++ header that is
// looked for when the addon is built; this class is all of topknot that knows it. Without the header every constructor
// throws.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/hnsw_args.h"
#include "core/tensor.h"

namespace topknot {

/// Whether this build has the graph.
bool hasHnsw();

/// Where the vectors of the nodes lie. Row i belongs to the node in slot i.
struct HnswVectors {
  float* rows;
  int64_t stride;
  int64_t width;           // numbers of a row that a query is compared with
  VectorDistance between;  // two rows, of all of their numbers, where the graph is linked
  VectorDistance toQuery;  // a query and a row; orders rows as `between` would

  float* row(int64_t slot) const { return rows + slot * stride; }
};

struct HnswCandidate {
  int32_t slot;
  float distance;
};

/// Which nodes a search may return: those with a key, and the key's bit set where there are bits.
struct HnswFilter {
  const int32_t* keys;  // [slots]; -1: never returned
  const uint64_t* allowed = nullptr;
  int64_t count = 0;  // of the bits in `allowed`; keys beyond them are not returned

  bool operator()(int64_t slot) const {
    const int64_t key = keys[slot];
    if (key < 0) return false;
    return !allowed || (key < count && (allowed[key / 64] >> (key % 64) & 1));
  }
};

class HnswGraph {
 public:
  /// Neighbours of a node on the upper levels; on the base level twice as many.
  explicit HnswGraph(int64_t connectivity);
  /// What bytes() gave, a copy of it or, where viewed, those bytes themselves, which nobody may write to then: for a
  /// graph that stays in a mapped file. Throws ERR_FORMAT for bytes that no graph has.
  HnswGraph(int64_t connectivity, const Tensor& bytes, bool viewed);
  HnswGraph(HnswGraph&&) noexcept;
  HnswGraph& operator=(HnswGraph&&) noexcept;
  ~HnswGraph();

  int64_t size() const;
  int64_t capacity() const;
  bool viewed() const;
  /// Memory that it keeps from others.
  size_t memory() const;

  // Writing, which a viewed graph does not take: nobody may read meanwhile. Calls with different contexts may run at
  // once once the first node is there.

  void reserve(int64_t nodes);
  /// Adds a node for the vector, which is copied to its row before other nodes can see it. The level is drawn from the
  /// context's own generator, so a graph built with one context is always the same.
  int32_t add(const HnswVectors& vectors, const float* vector, int64_t expansion, int context);
  /// Links the node anew after its row has been overwritten.
  void relink(const HnswVectors& vectors, int32_t slot, int64_t expansion, int context);

  // Reading: any number at once, each with a context of its own.

  static constexpr int contexts = 64;
  /// Up to `wanted` nodes near the query, best first. No filter: every node may be returned.
  std::span<const HnswCandidate> find(const HnswVectors& vectors, const float* query, int64_t wanted, int64_t expansion,
                                      const HnswFilter* filter, int context) const;
  /// The graph as uint8 [bytes], of a layout that hnsw_graph.cpp tells.
  Tensor bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace topknot
