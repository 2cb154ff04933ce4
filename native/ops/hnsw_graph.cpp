#include "ops/hnsw_graph.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/file.h"

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
  int64_t width;  // of what fromVector compares

  template <typename Entry>
  float operator()(const float* a, const Entry& b) const {
    return fromVector(a, vectors.row(get_slot(b)), width);
  }
  template <typename A, typename B>
  float operator()(const A& a, const B& b) const {
    return vectors.between(vectors.row(get_slot(a)), vectors.row(get_slot(b)), vectors.stride);
  }
};

/// Fetches the rows of the neighbours that are about to be compared: they lie anywhere in memory.
struct Prefetch {
  const HnswVectors& vectors;
  int64_t width;

  template <typename It>
  void operator()(It begin, It end) const {
    for (; begin != end; ++begin) {
      const float* row = vectors.row(get_slot(begin));
      for (int64_t i = 0; i < width; i += 16) __builtin_prefetch(row + i);
    }
  }
};

/// usearch's errors throw when they are destroyed unread.
template <typename Result>
void expectDone(Result& result, const char* what) {
  if (const char* message = result.error.release()) fail(ErrorCode::memory, "could not ", what, ": ", message);
}

// ---- The bytes of a graph
//
// A head of five uint64 (nodes, neighbours on upper levels and on the base level, the highest level, the slot where
// searches start), int16 the level of each node, then each node: uint32 0, its level again, and for each level from 0
// up uint32 the number of neighbours and room for all that there may be. Little-endian, nothing aligned: as usearch
// lays a graph out in memory, so that it can search it where it lies.

using Head = us::index_serialized_header_t;
constexpr size_t nodeHead = 6;
static_assert(sizeof(Head) == 40);

template <typename T>
T load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Looks at all of it: usearch believes whatever it is given.
void expectGraph(std::span<const char> bytes, int64_t connectivity) {
  const auto bad = [](bool ok, const auto&... what) { require(ok, ErrorCode::format, "graph: ", what...); };
  bad(bytes.size() >= sizeof(Head), "it ends in its head");
  const Head head = load<Head>(bytes.data());
  const uint64_t n = head.size,
                 most[2] = {2 * static_cast<uint64_t>(connectivity), static_cast<uint64_t>(connectivity)};
  bad(head.connectivity == most[1] && head.connectivity_base == most[0], "expected a connectivity of ", connectivity);
  bad(n > 0 && n <= INT32_MAX && (bytes.size() - sizeof(Head)) / 2 >= n, "it ends in the levels of its nodes");
  bad(head.entry_slot < n, "the node to start from is none of the ", static_cast<int64_t>(n));
  const char* levels = bytes.data() + sizeof(Head);
  const auto levelOf = [&](uint64_t slot) { return load<int16_t>(levels + 2 * slot); };
  const int16_t top = levelOf(head.entry_slot);
  bad(top >= 0 && top <= 64 && head.max_level == static_cast<uint64_t>(top), "the node to start from has level ", top);
  size_t at = sizeof(Head) + 2 * n;
  for (uint64_t slot = 0; slot < n; ++slot) {
    const int16_t level = levelOf(slot);
    const int64_t node = static_cast<int64_t>(slot);
    bad(level >= 0 && level <= top, "node ", node, " has level ", level, ", but the highest is ", top);
    const size_t size = nodeHead + 4 + 4 * most[0] + static_cast<size_t>(level) * (4 + 4 * most[1]);
    bad(bytes.size() - at >= size, "it ends in node ", node);
    bad(load<int16_t>(bytes.data() + at + 4) == level, "node ", node, " has two levels");
    const char* list = bytes.data() + at + nodeHead;
    for (int16_t l = 0; l <= level; ++l) {
      const uint32_t count = load<uint32_t>(list);
      bad(count <= most[l > 0], "node ", node, " has ", static_cast<int64_t>(count), " neighbours");
      for (uint32_t i = 0; i < count; ++i) {
        const uint32_t to = load<uint32_t>(list + 4 + 4 * i);
        bad(to < n && levelOf(to) >= l, "node ", node, " has a neighbour on level ", l,
            " that is not there: ", static_cast<int64_t>(to));
      }
      list += 4 + 4 * most[l > 0];
    }
    at += size;
  }
  bad(at == bytes.size(), "it goes on behind its last node");
}

}  // namespace

struct HnswGraph::Impl {
  Tensor viewed{};  // the bytes that `index` lies in, where it has none of its own
  Index index;
};

bool hasHnsw() { return true; }

HnswGraph::HnswGraph(int64_t connectivity)
    : impl_(new Impl{.index = Index(us::index_config_t(static_cast<size_t>(connectivity)))}) {
  require(impl_->index.try_reserve({0, contexts}), ErrorCode::memory, "could not allocate the graph");
}

HnswGraph::HnswGraph(int64_t connectivity, const Tensor& bytes, bool viewed) : HnswGraph(connectivity) {
  expect(bytes, "graph", DType::uint8, 1);
  Index& index = impl_->index;
  require(index.neighbors_base_bytes() == static_cast<size_t>(4 + 8 * connectivity) &&
              index.neighbors_bytes() == static_cast<size_t>(4 + 4 * connectivity) &&
              index.memory_usage_per_node(0) == nodeHead + index.neighbors_base_bytes(),
          ErrorCode::internal, "graph: usearch lays its nodes out in another way");
  if (viewed) readAhead(bytes.buffer->data(), bytes.bytes());
  expectGraph(bytes.span<const char>(), connectivity);
  if (viewed) {
    impl_->viewed = bytes;
    auto done = index.view(us::memory_mapped_file_t(bytes.data<us::byte_t>(), bytes.bytes()));
    expectDone(done, "open the graph");
  } else {
    const char* from = bytes.data<char>();
    auto done = index.load_from_stream([&](void* to, size_t size) {
      if (to) std::memcpy(to, std::exchange(from, from + size), size);
      return to != nullptr;
    });
    expectDone(done, "build the graph");
  }
}

HnswGraph::HnswGraph(HnswGraph&&) noexcept = default;
HnswGraph& HnswGraph::operator=(HnswGraph&&) noexcept = default;
HnswGraph::~HnswGraph() = default;

int64_t HnswGraph::size() const { return static_cast<int64_t>(impl_->index.size()); }
int64_t HnswGraph::capacity() const { return static_cast<int64_t>(impl_->index.capacity()); }
bool HnswGraph::viewed() const { return impl_->viewed.buffer != nullptr; }
size_t HnswGraph::memory() const {
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
  auto added = impl_->index.add(0, vector, Distance{vectors, vectors.between, vectors.stride}, config, place,
                                Prefetch{vectors, vectors.stride});
  expectDone(added, "add to the graph");
  return static_cast<int32_t>(added.slot);
}

void HnswGraph::relink(const HnswVectors& vectors, int32_t slot, int64_t expansion, int context) {
  const us::index_update_config_t config{static_cast<size_t>(expansion), static_cast<size_t>(context)};
  const float* vector = vectors.row(slot);
  auto updated = impl_->index.update(impl_->index.iterator_at(static_cast<uint32_t>(slot)), 0, vector,
                                     Distance{vectors, vectors.between, vectors.stride}, config, us::dummy_callback_t{},
                                     Prefetch{vectors, vectors.stride});
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
  const Distance distance{vectors, vectors.toQuery, vectors.width};
  const Prefetch prefetch{vectors, vectors.width};
  if (filter) {
    const auto allowed = [filter](const auto& member) { return (*filter)(static_cast<int64_t>(member.slot)); };
    collect(impl_->index.search(query, k, distance, config, allowed, prefetch));
  } else {
    collect(impl_->index.search(query, k, distance, config, us::dummy_predicate_t{}, prefetch));
  }
  return out;
}

Tensor HnswGraph::bytes() const {
  if (viewed()) return impl_->viewed;
  const Tensor out = Tensor::host<uint8_t>({static_cast<int64_t>(impl_->index.serialized_length())});
  char* to = out.data<char>();
  auto done = impl_->index.save_to_stream([&](const void* from, size_t size) {
    std::memcpy(std::exchange(to, to + size), from, size);
    return true;
  });
  expectDone(done, "save the graph");
  return out;
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
HnswGraph::HnswGraph(int64_t, const Tensor&, bool) { missing(); }
HnswGraph::HnswGraph(HnswGraph&&) noexcept = default;
HnswGraph& HnswGraph::operator=(HnswGraph&&) noexcept = default;
HnswGraph::~HnswGraph() = default;
int64_t HnswGraph::size() const { missing(); }
int64_t HnswGraph::capacity() const { missing(); }
bool HnswGraph::viewed() const { missing(); }
size_t HnswGraph::memory() const { missing(); }
void HnswGraph::reserve(int64_t) { missing(); }
int32_t HnswGraph::add(const HnswVectors&, const float*, int64_t, int) { missing(); }
void HnswGraph::relink(const HnswVectors&, int32_t, int64_t, int) { missing(); }
std::span<const HnswCandidate> HnswGraph::find(const HnswVectors&, const float*, int64_t, int64_t, const HnswFilter*,
                                               int) const {
  missing();
}
Tensor HnswGraph::bytes() const { missing(); }

#endif

}  // namespace topknot
