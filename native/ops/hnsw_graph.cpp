#include "ops/hnsw_graph.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/tensor.h"

#if TOPKNOT_USEARCH
#include <usearch/index.hpp>
#endif

namespace topknot {

#if TOPKNOT_USEARCH

namespace us = unum::usearch;
namespace {

/// usearch calls its allocators from noexcept functions and looks at what they return.
template <typename T>
struct Malloc {
  using value_type = T;
  Malloc() = default;
  template <typename U>
  Malloc(const Malloc<U>&) {}
  T* allocate(size_t n) {
    constexpr size_t unit = alignof(T) > 64 ? alignof(T) : 64;
    return static_cast<T*>(std::aligned_alloc(unit, (n * sizeof(T) + unit) / unit * unit));
  }
  void deallocate(T* p, size_t) { std::free(p); }
};

/// Nodes are packed into large blocks, which are counted in memory() and freed together.
class NodeMemory {
 public:
  using value_type = char;

  char* allocate(size_t bytes) {
    try {
      if (!arena_) arena_ = std::make_shared<Arena>();
      Arena& a = *arena_;
      if (a.blocks.empty() || a.used + bytes > a.blocks.back()->bytes()) {
        const size_t next = std::clamp<size_t>(2 * a.total, 1 << 16, 1 << 24);
        a.blocks.push_back(Buffer::host(std::max(next, bytes)));
        a.total += a.blocks.back()->bytes();
        a.used = 0;
      }
      return static_cast<char*>(a.blocks.back()->data()) + std::exchange(a.used, a.used + bytes);
    } catch (const std::exception&) {
      return nullptr;
    }
  }
  void deallocate(char*, size_t) {}
  void reset() { arena_.reset(); }  // tells usearch that all go together
  size_t bytes() const { return arena_ ? arena_->total : 0; }

 private:
  struct Arena {
    std::vector<std::shared_ptr<Buffer>> blocks;
    size_t used = 0, total = 0;
  };
  std::shared_ptr<Arena> arena_;
};

using Index = us::index_gt<float, uint32_t, uint32_t, Malloc<char>, NodeMemory>;

struct Distance {
  const HnswVectors& vectors;
  VectorDistance fromVector;

  template <typename Entry>
  float operator()(const float* a, const Entry& b) const {
    return fromVector(a, vectors.row(get_slot(b)), vectors.stride);
  }
  template <typename A, typename B>
  float operator()(const A& a, const B& b) const {
    return vectors.between(vectors.row(get_slot(a)), vectors.row(get_slot(b)), vectors.stride);
  }
};

/// Fetches the rows of the neighbours that are about to be compared: they lie anywhere in memory.
struct Prefetch {
  const HnswVectors& vectors;

  template <typename It>
  void operator()(It begin, It end) const {
    for (; begin != end; ++begin) {
      const float* row = vectors.row(get_slot(begin));
      for (int64_t i = 0; i < vectors.stride; i += 16) __builtin_prefetch(row + i);
    }
  }
};

/// usearch's errors throw when they are destroyed unread.
template <typename Result>
void expectDone(Result& result, const char* what) {
  if (const char* message = result.error.release()) fail(ErrorCode::memory, "could not ", what, ": ", message);
}

}  // namespace

struct HnswGraph::Impl {
  Index index;
};

bool hasHnsw() { return true; }

HnswGraph::HnswGraph(int64_t connectivity)
    : impl_(new Impl{Index(us::index_config_t(static_cast<size_t>(connectivity)))}) {}

HnswGraph::~HnswGraph() = default;

int64_t HnswGraph::size() const { return static_cast<int64_t>(impl_->index.size()); }
int64_t HnswGraph::capacity() const { return static_cast<int64_t>(impl_->index.capacity()); }
size_t HnswGraph::bytes() const {
  return impl_->index.tape_allocator().bytes() + impl_->index.capacity() * sizeof(char*);
}

void HnswGraph::reserve(int64_t nodes) {
  require(impl_->index.try_reserve({static_cast<size_t>(nodes), contexts}), ErrorCode::memory,
          "could not allocate the graph of ", nodes, " vectors");
}

int32_t HnswGraph::add(const HnswVectors& vectors, const float* vector, int64_t expansion, int context) {
  const us::index_update_config_t config{static_cast<size_t>(expansion), static_cast<size_t>(context)};
  const auto place = [&](const auto& member) {
    std::memcpy(vectors.row(get_slot(member)), vector, static_cast<size_t>(vectors.stride) * sizeof(float));
  };
  auto added = impl_->index.add(0, vector, Distance{vectors, vectors.between}, config, place, Prefetch{vectors});
  expectDone(added, "add to the graph");
  return static_cast<int32_t>(added.slot);
}

void HnswGraph::relink(const HnswVectors& vectors, int32_t slot, int64_t expansion, int context) {
  const us::index_update_config_t config{static_cast<size_t>(expansion), static_cast<size_t>(context)};
  const float* vector = vectors.row(slot);
  auto updated =
      impl_->index.update(impl_->index.iterator_at(static_cast<uint32_t>(slot)), 0, vector,
                          Distance{vectors, vectors.between}, config, us::dummy_callback_t{}, Prefetch{vectors});
  expectDone(updated, "update the graph");
}

std::span<const HnswCandidate> HnswGraph::find(const HnswVectors& vectors, const float* query, int64_t wanted,
                                               int64_t expansion, const HnswFilter* filter, int context) const {
  const us::index_search_config_t config{static_cast<size_t>(expansion), static_cast<size_t>(context), false};
  static thread_local std::vector<HnswCandidate> out;
  out.clear();
  const auto collect = [&](auto&& found) {
    expectDone(found, "search the graph");
    for (size_t i = 0; i < found.size(); ++i) {
      const auto match = found[i];
      out.push_back({static_cast<int32_t>(match.member.slot), match.distance});
    }
  };
  const size_t k = static_cast<size_t>(wanted);
  const Distance distance{vectors, vectors.toQuery};
  if (filter) {
    const auto allowed = [filter](const auto& member) { return (*filter)(static_cast<int64_t>(member.slot)); };
    collect(impl_->index.search(query, k, distance, config, allowed, Prefetch{vectors}));
  } else {
    collect(impl_->index.search(query, k, distance, config, us::dummy_predicate_t{}, Prefetch{vectors}));
  }
  return out;
}

HnswLinks HnswGraph::links() const {
  HnswLinks out;
  // The entry point is told by the head of the stream alone.
  auto stopped = impl_->index.save_to_stream([&](const void* bytes, size_t size) {
    us::index_serialized_header_t head;
    if (size == sizeof head) {
      std::memcpy(&head, bytes, size);
      out.entry = static_cast<int32_t>(head.entry_slot);
    }
    return false;
  });
  stopped.error.release();
  for (uint32_t slot = 0; slot < impl_->index.size(); ++slot) {
    const size_t levels = impl_->index.level_of(slot);
    out.levels.push_back(static_cast<int32_t>(levels));
    for (size_t level = 0; level <= levels; ++level) {
      const auto neighbours = impl_->index.neighbors(slot, level);
      out.counts.push_back(static_cast<int32_t>(neighbours.size()));
      for (size_t i = 0; i < neighbours.size(); ++i) out.neighbours.push_back(static_cast<int32_t>(neighbours[i].slot));
    }
  }
  return out;
}

HnswGraph::HnswGraph(int64_t connectivity, const HnswLinks& links) : HnswGraph(connectivity) {
  const auto bad = [](bool ok, const auto&... what) { require(ok, ErrorCode::format, "graph: ", what...); };
  const int64_t n = static_cast<int64_t>(links.levels.size());
  const size_t most[2] = {static_cast<size_t>(2 * connectivity), static_cast<size_t>(connectivity)};
  bad(n > 0 && links.entry >= 0 && links.entry < n, "expected an entry point in 0 to ", n - 1, " but received ",
      links.entry);
  const int32_t top = links.levels[static_cast<size_t>(links.entry)];
  bad(top <= 64, "expected levels up to 64 but received ", top);
  size_t lists = 0, edges = 0;
  for (int64_t slot = 0; slot < n; ++slot) {
    const int32_t levels = links.levels[static_cast<size_t>(slot)];
    bad(levels >= 0 && levels <= top, "node ", slot, " has level ", levels, ", but the entry point's is ", top);
    for (int32_t level = 0; level <= levels; ++level, ++lists) {
      bad(lists < links.counts.size(), "it ends before node ", slot);
      const int64_t count = links.counts[lists];
      bad(count >= 0 && count <= static_cast<int64_t>(most[level > 0]), "node ", slot, " has ", count, " neighbours");
      for (int64_t i = 0; i < count; ++i, ++edges) {
        bad(edges < links.neighbours.size(), "it ends before node ", slot);
        const int32_t to = links.neighbours[edges];
        bad(to >= 0 && to < n && links.levels[static_cast<size_t>(to)] >= level, "node ", slot,
            " has a neighbour on level ", level, " that is not there: ", to);
      }
    }
  }
  bad(lists == links.counts.size() && edges == links.neighbours.size(), "it goes on behind its last node");

  // The stream that usearch reads: a head, the levels, then for each node its key, its level and its padded lists.
  const size_t listBytes[2] = {4 + 4 * most[0], 4 + 4 * most[1]};
  require(impl_->index.neighbors_base_bytes() == listBytes[0] && impl_->index.neighbors_bytes() == listBytes[1] &&
              impl_->index.memory_usage_per_node(0) == 6 + listBytes[0],
          ErrorCode::internal, "graph: usearch lays its nodes out in another way");
  int64_t next = -2;  // -2: the head, -1: the levels, then the nodes
  size_t list = 0, edge = 0;
  const auto input = [&](void* to, size_t size) {
    if (!to) return false;
    char* out = static_cast<char*>(to);
    if (next == -2) {
      us::index_serialized_header_t head;
      head.size = static_cast<uint64_t>(n);
      head.connectivity = most[1];
      head.connectivity_base = most[0];
      head.max_level = static_cast<uint64_t>(top);
      head.entry_slot = static_cast<uint64_t>(links.entry);
      std::memcpy(out, &head, size);
    } else if (next == -1) {
      for (int32_t level : links.levels) {
        const int16_t narrow = static_cast<int16_t>(level);
        std::memcpy(std::exchange(out, out + 2), &narrow, 2);
      }
    } else {
      std::memset(out, 0, size);
      const int32_t levels = links.levels[static_cast<size_t>(next)];
      const int16_t narrow = static_cast<int16_t>(levels);
      std::memcpy(out + 4, &narrow, 2);
      out += 6;
      for (int32_t level = 0; level <= levels; ++level) {
        const int32_t count = links.counts[list++];
        std::memcpy(out, &count, 4);
        if (count) std::memcpy(out + 4, &links.neighbours[edge], static_cast<size_t>(count) * 4);
        edge += static_cast<size_t>(count);
        out += listBytes[level > 0];
      }
    }
    ++next;
    return true;
  };
  auto loaded = impl_->index.load_from_stream(input);
  expectDone(loaded, "build the graph");
  reserve(n);
}

#else

namespace {
[[noreturn]] void missing() {
  fail(
      ErrorCode::dependency,
      "HnswIndex: topknot was built from source without the header of usearch. Install it and build again: npm install "
      "usearch@2.25.3 --ignore-scripts && npm rebuild topknot. FlatIndex needs nothing");
}
}  // namespace

struct HnswGraph::Impl {};
bool hasHnsw() { return false; }
HnswGraph::HnswGraph(int64_t) { missing(); }
HnswGraph::HnswGraph(int64_t, const HnswLinks&) { missing(); }
HnswGraph::~HnswGraph() = default;
int64_t HnswGraph::size() const { missing(); }
int64_t HnswGraph::capacity() const { missing(); }
size_t HnswGraph::bytes() const { missing(); }
void HnswGraph::reserve(int64_t) { missing(); }
int32_t HnswGraph::add(const HnswVectors&, const float*, int64_t, int) { missing(); }
void HnswGraph::relink(const HnswVectors&, int32_t, int64_t, int) { missing(); }
std::span<const HnswCandidate> HnswGraph::find(const HnswVectors&, const float*, int64_t, int64_t, const HnswFilter*,
                                               int) const {
  missing();
}
HnswLinks HnswGraph::links() const { missing(); }

#endif

}  // namespace topknot
