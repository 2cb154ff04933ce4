// The approximate index as tensors: what is loaded or left in a file answers as before, compacting leaves what building
// anew gives, and bytes that no index has are refused before usearch sees them.
#include <cstring>

#include "test/hnsw_fixture.h"

using namespace topknot;

#if TOPKNOT_USEARCH

namespace {

Tensor copyOf(const Tensor& t) {
  const Tensor copy = Tensor::host(t.dtype, t.shape);
  std::memcpy(copy.buffer->data(), t.buffer->data(), t.bytes());
  return copy;
}

/// The state with some bytes of its graph overwritten.
template <typename T>
HnswState patched(const HnswState& state, int64_t at, T value) {
  HnswState out = state;
  out.graph = copyOf(state.graph);
  std::memcpy(out.graph.data<char>() + at, &value, sizeof value);
  return out;
}

HnswState withKey(const HnswState& state, int64_t slot, int32_t key) {
  HnswState out = state;
  out.keys = copyOf(state.keys);
  out.keys.data<int32_t>()[slot] = key;
  return out;
}

SearchResult found(const Hnsw& index, const Tensor& queries) {
  Job job;
  const HnswFound out = ops::hnswSearch(job, index, queries, 10, 64, std::nullopt);
  return {out.ids, out.scores};
}

/// Both ways of loading.
template <typename F>
void bothWays(F&& check) {
  for (bool mapped : {false, true}) check(mapped);
}

// Where things lie in a graph of `options`: see hnsw_graph.cpp.
constexpr int64_t head = 40, nodeHead = 6, baseList = 4 + 4 * 16, upperList = 4 + 4 * 8;

int16_t levelOf(const HnswState& state, int64_t slot) {
  int16_t level;
  std::memcpy(&level, state.graph.data<char>() + head + 2 * slot, 2);
  return level;
}

int64_t nodeAt(const HnswState& state, int64_t slot) {
  int64_t at = head + 2 * state.keys.count();
  for (int64_t i = 0; i < slot; ++i) at += nodeHead + baseList + levelOf(state, i) * upperList;
  return at;
}

}  // namespace

TEST(a_state_gives_the_same_index) {
  Job job;
  const Tensor items = clustered(900, 20, 5), queries = clustered(20, 20, 6);
  const Hnsw index = ops::hnswBuild(job, items, options, true);
  ops::hnswChange(job, index, range(100, 200), ints({}), none(20), false);
  const HnswState state = ops::hnswState(job, index);
  const SearchResult a = found(index, queries);
  bothWays([&](bool mapped) {
    const HnswLoaded loaded = ops::hnswLoad(job, state, options, mapped);
    CHECK(loaded.live == 800);
    CHECK(ops::hnswCounts(loaded.index).nodes == 900);
    CHECK(same(ops::hnswState(job, loaded.index), state));
    const SearchResult b = found(loaded.index, queries);
    CHECK(same(a.scores.tensor, b.scores.tensor));
    for (int64_t i = 0; i < a.ids.tensor.count(); ++i) {  // keys are numbered anew: those behind the gap fell by 100
      const int32_t key = a.ids.tensor.data<int32_t>()[i];
      CHECK(b.ids.tensor.data<int32_t>()[i] == (key < 100 ? key : key - 100));
    }
  });
}

TEST(a_mapped_index_is_copied_before_its_first_change) {
  Job job;
  const Tensor items = clustered(600, 20, 15), more = clustered(100, 20, 16);
  for (Metric metric : {Metric::innerProduct, Metric::cosine, Metric::l2}) {
    const HnswOptions own{.metric = metric, .connectivity = 8, .expansionAdd = 64};
    const HnswState state = ops::hnswState(job, ops::hnswBuild(job, items, own, false));
    const HnswState before{copyOf(state.vectors), copyOf(state.keys), copyOf(state.graph), 20, state.bound};
    std::vector<HnswState> after;
    bothWays([&](bool mapped) {
      const Hnsw index = ops::hnswLoad(job, state, own, mapped).index;
      ops::hnswChange(job, index, range(0, 50), range(600, 700), more, false);
      CHECK(index->live() == 650);
      after.push_back(ops::hnswState(job, index));
    });
    CHECK(same(after[0], after[1]));
    CHECK(same(state, before));  // what lies in a file is never written to
  }
}

TEST(compacting_gives_what_building_anew_gives) {
  Job job;
  // Of few numbers: scaling a vector of length 1 to length 1 would change a last bit here and there.
  for (int64_t dims : {3, 20}) {
    const Tensor items = clustered(700, dims, 17), queries = clustered(20, dims, 18);
    for (Metric metric : {Metric::innerProduct, Metric::cosine, Metric::l2}) {
      const HnswOptions own{.metric = metric, .connectivity = 8, .expansionAdd = 64};
      const Hnsw index = ops::hnswBuild(job, items, own, false);
      ops::hnswChange(job, index, range(0, 300), ints({}), none(dims), false);
      const SearchResult before = found(index, queries);
      const Hnsw small = ops::hnswCompact(job, index, false);
      CHECK(small->live() == 400 && ops::hnswCounts(small).nodes == 400);
      CHECK(ops::hnswCounts(index).nodes == 700);
      CHECK(same(found(index, queries).ids.tensor, before.ids.tensor));
      Tensor left = Tensor::host<float>({400, dims});
      std::copy_n(items.data<float>() + 300 * dims, 400 * dims, left.data<float>());
      CHECK(same(ops::hnswState(job, small), ops::hnswState(job, ops::hnswBuild(job, left, own, false))));
    }
  }
}

TEST(compacting_without_signposts_keeps_the_graph) {
  Job job;
  const Tensor items = clustered(300, 20, 19);
  const Hnsw index = ops::hnswBuild(job, items, options, false);
  ops::hnswChange(job, index, range(0, 100), ints({}), none(20), false);
  ops::hnswChange(job, index, ints({}), range(300, 400), clustered(100, 20, 20), false);
  const Hnsw compact = ops::hnswCompact(job, index, false);
  CHECK(same(ops::hnswState(job, compact), ops::hnswState(job, index)));
  const Tensor ids = found(compact, items).ids.tensor;
  CHECK(*std::max_element(ids.data<int32_t>(), ids.data<int32_t>() + ids.count()) < 300);
}

TEST(an_index_compacted_to_nothing_can_be_filled_again) {
  Job job;
  const Tensor items = clustered(50, 20, 21);
  const Hnsw index = ops::hnswBuild(job, items, options, false);
  ops::hnswChange(job, index, range(0, 50), ints({}), none(20), false);
  const Hnsw empty = ops::hnswCompact(job, index, false);
  CHECK(empty->live() == 0 && ops::hnswCounts(empty).nodes == 0);
  CHECK(found(empty, items).ids.tensor.data<int32_t>()[0] == -1);
  ops::hnswChange(job, empty, ints({}), range(0, 50), items, false);
  CHECK(same(ops::hnswState(job, empty), ops::hnswState(job, ops::hnswBuild(job, items, options, false))));
}

TEST(refuses_states_that_no_index_has) {
  Job job;
  const Tensor items = clustered(200, 20, 7);
  const HnswState good = ops::hnswState(job, ops::hnswBuild(job, items, options, false));
  const int64_t n = 200, bytes = good.graph.count(), last = nodeAt(good, n - 1);
  std::vector<HnswState> bad;
  for (uint64_t size : {uint64_t{0}, uint64_t{199}, uint64_t{201}, uint64_t{1} << 40, ~uint64_t{0}})
    bad.push_back(patched(good, 0, size));
  for (int64_t at : {8, 16, 24}) bad.push_back(patched(good, at, uint64_t{7}));  // connectivities, the highest level
  for (uint64_t entry : {uint64_t{200}, ~uint64_t{0}}) bad.push_back(patched(good, 32, entry));
  for (int16_t level : {int16_t{-1}, int16_t{70}, int16_t{INT16_MAX}}) {
    bad.push_back(patched(good, head + 2 * 3, level));         // among the levels
    bad.push_back(patched(good, nodeAt(good, 3) + 4, level));  // in the node itself
  }
  for (uint32_t count : {17u, 1u << 31, ~0u}) bad.push_back(patched(good, nodeAt(good, 5) + nodeHead, count));
  for (uint32_t slot : {200u, ~0u}) {
    bad.push_back(patched(good, nodeAt(good, 9) + nodeHead + 4, slot));
    bad.push_back(patched(good, last + nodeHead + 4, slot));
  }
  // A neighbour on a level that it does not reach, and a start below the highest, would be read behind their ends.
  int64_t low = 0, high = 0;
  while (levelOf(good, low) > 0) ++low;
  while (levelOf(good, high) == 0) ++high;
  bad.push_back(patched(good, 32, static_cast<uint64_t>(low)));
  HnswState upper = patched(good, nodeAt(good, high) + nodeHead + baseList, uint32_t{1});
  bad.push_back(patched(upper, nodeAt(good, high) + nodeHead + baseList + 4, static_cast<uint32_t>(low)));
  for (int64_t length : {int64_t{0}, int64_t{39}, head + 100, last, bytes - 1, bytes + 1}) {
    HnswState cut = good;
    cut.graph = Tensor::host<uint8_t>({length}, true);
    std::memcpy(cut.graph.data<char>(), good.graph.data<char>(), static_cast<size_t>(std::min(length, bytes)));
    bad.push_back(cut);
  }
  for (int32_t key : {10, 200, -1, -2}) bad.push_back(withKey(good, 9, key));
  for (int64_t dimensions : {int64_t{0}, int64_t{-3}, int64_t{33}, int64_t{1} << 60}) {
    bad.push_back(good);
    bad.back().dimensions = dimensions;
  }
  bad.push_back(good);
  bad.back().keys = range(0, 199);
  bad.push_back(good);
  bad.back().vectors = clustered(199, 32, 1);
  bothWays([&](bool mapped) {
    for (const HnswState& state : bad) CHECK_THROWS(ops::hnswLoad(job, state, options, mapped), format);
    CHECK(ops::hnswLoad(job, good, options, mapped).live == n);
  });
}

TEST(any_byte_may_be_another) {
  Job job;
  const Tensor items = clustered(60, 20, 8);
  const HnswState good = ops::hnswState(job, ops::hnswBuild(job, items, options, false));
  Random random(8, 0);
  for (int round = 0; round < 1500; ++round) {
    const int64_t at = static_cast<int64_t>(random.below(static_cast<uint64_t>(good.graph.count())));
    const HnswState state = patched(good, at, static_cast<uint8_t>(random.below(256)));
    try {
      const HnswLoaded loaded = ops::hnswLoad(job, state, options, round % 2 == 0);
      found(loaded.index, items);
      ops::hnswChange(job, loaded.index, range(0, 3), range(60, 63), clustered(3, 20, 9), false);
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::format);
    }
  }
}

TEST(numbers_that_are_none_are_refused_when_they_are_read) {
  Job job;
  const Tensor items = clustered(400, 20, 22);
  HnswState state = ops::hnswState(job, ops::hnswBuild(job, items, options, false));
  state.vectors = copyOf(state.vectors);
  Random random(23, 0);
  for (int i = 0; i < 2000; ++i) {
    constexpr float odd[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -1e38f};
    state.vectors.data<float>()[random.below(400 * 32)] = odd[i % 3];
  }
  CHECK_THROWS(ops::hnswLoad(job, state, options, false), format);
  const HnswLoaded mapped = ops::hnswLoad(job, state, options, true);  // left in the file, it is not read here
  const HnswFound every = ops::hnswSearch(job, mapped.index, items, 400, 0, std::nullopt);
  const Tensor ids = every.ids.tensor, scores = every.scores.tensor;
  for (int64_t q = 0; q < 400; ++q) {
    for (int64_t i = q * 400 + 1; i < (q + 1) * 400; ++i)
      CHECK(scores.data<float>()[i] <= scores.data<float>()[i - 1]);  // what is no number comes last
  }
  std::vector<int32_t> all(ids.data<int32_t>(), ids.data<int32_t>() + 400);
  std::sort(all.begin(), all.end());
  for (int32_t i = 0; i < 400; ++i) CHECK(all[static_cast<size_t>(i)] == i);
  found(mapped.index, items);
  CHECK_THROWS(ops::hnswChange(job, mapped.index, range(0, 3), ints({}), none(20), false), format);
}

#endif

TEST_MAIN()
