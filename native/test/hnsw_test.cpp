// The approximate index: distances on every instruction set, graphs built alike, changes under searches, hostile
// states.
#include <atomic>
#include <cmath>
#include <cstring>
#include <set>
#include <thread>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;

namespace {

constexpr HnswOptions options{.metric = Metric::innerProduct, .connectivity = 8, .expansionAdd = 64};

/// Rows around 20 centres.
Tensor clustered(int64_t rows, int64_t dims, uint64_t seed) {
  Tensor t = Tensor::host<float>({rows, dims});
  Random random(seed, 0);
  for (int64_t r = 0; r < rows; ++r) {
    Random centre(99, random.below(20));
    for (int64_t c = 0; c < dims; ++c)
      t.data<float>()[r * dims + c] = static_cast<float>(centre.normal() + 0.5 * random.normal());
  }
  return t;
}

Tensor ints(std::vector<int32_t> values) {
  Tensor t = Tensor::host<int32_t>({static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.data<int32_t>());
  return t;
}

Tensor range(int32_t begin, int32_t end) {
  std::vector<int32_t> values;
  for (int32_t i = begin; i < end; ++i) values.push_back(i);
  return ints(values);
}

Tensor none(int64_t dims) { return Tensor::host<float>({0, dims}); }

/// Share of the exact k best that the index found among keys 0 to n - 1, whose vectors these are.
double recall(Job& job, const Hnsw& index, const Tensor& items, const Tensor& queries, int64_t k, int64_t expansion) {
  const TopkResult exact = ops::topk(job, queries, items, std::nullopt, k, Metric::innerProduct, {});
  const Tensor found = ops::hnswSearch(job, index, queries, k, expansion, std::nullopt).ids.tensor;
  int64_t hits = 0;
  for (int64_t q = 0; q < queries.rows(); ++q) {
    const int32_t* got = found.data<int32_t>() + q * k;
    for (int64_t i = 0; i < k; ++i) hits += std::count(got, got + k, exact.ids.data<int32_t>()[q * k + i]);
  }
  return static_cast<double>(hits) / static_cast<double>(queries.rows() * k);
}

bool same(const Tensor& a, const Tensor& b) {
  return a.shape == b.shape && std::memcmp(a.buffer->data(), b.buffer->data(), a.bytes()) == 0;
}
bool same(const HnswState& a, const HnswState& b) {
  return a.entry == b.entry && same(a.vectors, b.vectors) && same(a.keys, b.keys) && same(a.levels, b.levels) &&
         same(a.counts, b.counts) && same(a.neighbours, b.neighbours);
}

}  // namespace

TEST(distances_match_their_formulas) {
  for (const Backend* backend : cpuBackends()) {
    for (Metric metric : {Metric::innerProduct, Metric::cosine, Metric::l2}) {
      VectorDistance distance = nullptr;
      const VectorDistanceArgs args{metric, &distance};
      run(*backend, &Backend::vectorDistance, "vectorDistance", Exec{}, args);
      for (int64_t n = vectorStep; n <= 15 * vectorStep; n += vectorStep) {
        const Tensor pair = clustered(2, n, static_cast<uint64_t>(n));
        const float *a = pair.data<float>(), *b = a + n;
        double sum = 0, scale = 0;
        for (int64_t i = 0; i < n; ++i) {
          const double x = a[i], y = b[i];
          sum += metric == Metric::l2 ? (x - y) * (x - y) : -x * y;
          scale += metric == Metric::l2 ? (x - y) * (x - y) : std::fabs(x * y);
        }
        CHECK(std::fabs(static_cast<double>(distance(a, b, n)) - sum) <= 1e-6 * scale);
      }
    }
  }
}

#if TOPKNOT_USEARCH

TEST(finds_most_on_every_instruction_set) {
  Job job;
  const Tensor items = clustered(3000, 20, 1), queries = clustered(50, 20, 2);
  for (const Backend* backend : cpuBackends()) {
    useIsa(backend->isa);
    for (bool parallel : {false, true}) {
      const Hnsw index = ops::hnswBuild(job, items, options, parallel);
      CHECK(recall(job, index, items, queries, 10, 64) > 0.85);
      CHECK(recall(job, index, items, queries, 10, 600) > 0.96);
    }
  }
  useIsa(cpuBackends().front()->isa);
}

TEST(one_thread_builds_the_same_graph_whatever_the_pool) {
  const Tensor items = clustered(1200, 20, 3), more = clustered(400, 20, 4);
  std::vector<HnswState> states;
  for (int threads : {1, 4}) {
    setThreadCount(threads);
    Job job;
    const Hnsw index = ops::hnswBuild(job, items, options, false);
    ops::hnswChange(job, index, range(0, 300), ints({}), none(20), false);
    ops::hnswChange(job, index, ints({}), range(1200, 1600), more, false);
    states.push_back(ops::hnswState(job, index));
  }
  CHECK(same(states[0], states[1]));
  CHECK(states[0].keys.count() == 1300);  // the places of 300 were used again
}

TEST(a_state_gives_the_same_index) {
  Job job;
  const Tensor items = clustered(900, 20, 5), queries = clustered(20, 20, 6);
  const Hnsw index = ops::hnswBuild(job, items, options, true);
  ops::hnswChange(job, index, range(100, 200), ints({}), none(20), false);
  const HnswState state = ops::hnswState(job, index);
  const HnswLoaded loaded = ops::hnswLoad(job, state, options);
  CHECK(loaded.live == 800);
  CHECK(same(ops::hnswState(job, loaded.index), state));
  const SearchResult a = ops::hnswSearch(job, index, queries, 10, 64, std::nullopt);
  const SearchResult b = ops::hnswSearch(job, loaded.index, queries, 10, 64, std::nullopt);
  CHECK(same(a.scores.tensor, b.scores.tensor));
  for (int64_t i = 0; i < a.ids.tensor.count(); ++i) {  // keys are numbered anew: those behind the gap fell by 100
    const int32_t key = a.ids.tensor.data<int32_t>()[i];
    CHECK(b.ids.tensor.data<int32_t>()[i] == (key < 100 ? key : key - 100));
  }
}

TEST(refuses_states_that_no_index_has) {
  Job job;
  const Tensor items = clustered(200, 20, 7);
  const Hnsw index = ops::hnswBuild(job, items, options, false);
  const HnswState good = ops::hnswState(job, index);
  const auto changed = [&](Tensor HnswState::*member, int64_t at, int32_t value) {
    HnswState bad = good;
    bad.*member = ints({(good.*member).data<int32_t>(), (good.*member).data<int32_t>() + (good.*member).count()});
    (bad.*member).data<int32_t>()[at] = value;
    return bad;
  };
  CHECK_THROWS(ops::hnswLoad(job, changed(&HnswState::levels, 3, 70), options), format);
  CHECK_THROWS(ops::hnswLoad(job, changed(&HnswState::levels, 3, -1), options), format);
  CHECK_THROWS(ops::hnswLoad(job, changed(&HnswState::counts, 0, 17), options), format);
  CHECK_THROWS(ops::hnswLoad(job, changed(&HnswState::counts, 5, -1), options), format);
  CHECK_THROWS(ops::hnswLoad(job, changed(&HnswState::counts, 5, 0), options), format);
  CHECK_THROWS(ops::hnswLoad(job, changed(&HnswState::neighbours, 9, 200), options), format);
  CHECK_THROWS(ops::hnswLoad(job, changed(&HnswState::neighbours, 9, -1), options), format);
  CHECK_THROWS(ops::hnswLoad(job, changed(&HnswState::keys, 9, 10), options), format);
  CHECK_THROWS(ops::hnswLoad(job, changed(&HnswState::keys, 9, 200), options), format);
  CHECK_THROWS(ops::hnswLoad(job, changed(&HnswState::keys, 9, -1), options), format);  // nobody has key 9
  for (int64_t entry : {int64_t{-1}, int64_t{200}}) {
    HnswState bad = good;
    bad.entry = entry;
    CHECK_THROWS(ops::hnswLoad(job, bad, options), format);
  }
  // A neighbour on a level that it does not reach would be read behind its end.
  for (int64_t slot = 0; slot < 200; ++slot) {
    HnswState bad = good;
    bad.entry = slot;
    if (good.levels.data<int32_t>()[slot] < good.levels.data<int32_t>()[good.entry])
      CHECK_THROWS(ops::hnswLoad(job, bad, options), format);
  }
  // Any one number may be wrong: an error, or an index that can be searched.
  Random random(8, 0);
  for (int round = 0; round < 300; ++round) {
    Tensor HnswState::*members[] = {&HnswState::levels, &HnswState::counts, &HnswState::neighbours, &HnswState::keys};
    Tensor HnswState::*member = members[random.below(4)];
    const int64_t at = static_cast<int64_t>(random.below(static_cast<uint64_t>((good.*member).count())));
    try {
      const HnswLoaded loaded =
          ops::hnswLoad(job, changed(member, at, static_cast<int32_t>(random.below(40)) - 4), options);
      ops::hnswSearch(job, loaded.index, items, 5, 30, std::nullopt);
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::format);
    }
  }
}

TEST(searches_go_on_while_it_changes) {
  const Tensor items = clustered(800, 20, 9), more = clustered(800, 20, 10);
  Job job;
  const Hnsw index = ops::hnswBuild(job, items, options, true);
  std::atomic<bool> done{false};
  std::atomic<int64_t> answers{0};
  std::vector<std::thread> searchers;
  for (int i = 0; i < 3; ++i) {
    searchers.emplace_back([&, i] {
      Job own(1);
      const Tensor queries = clustered(8, 20, static_cast<uint64_t>(20 + i));
      do {
        const SearchResult found = ops::hnswSearch(own, index, queries, 10, 40, std::nullopt);
        for (int64_t q = 0; q < 8; ++q) {
          const int32_t* ids = found.ids.tensor.data<int32_t>() + q * 10;
          CHECK(std::set<int32_t>(ids, ids + 10).size() == 10 && *std::min_element(ids, ids + 10) >= 0);
        }
        answers += 8;
      } while (!done);
    });
  }
  for (int round = 0; round < 2; ++round) {
    ops::hnswChange(job, index, range(0, 800), range(0, 800), more, round == 0);
    ops::hnswChange(job, index, ints({}), range(800, 1000), clustered(200, 20, 30), true);
    ops::hnswChange(job, index, range(800, 1000), ints({}), none(20), false);
  }
  done = true;
  for (std::thread& t : searchers) t.join();
  CHECK(answers >= 24);
  CHECK(recall(job, index, more, clustered(40, 20, 11), 10, 100) > 0.85);
}

TEST(a_cancelled_change_leaves_the_index_as_it_was) {
  Job job;
  const Tensor items = clustered(500, 20, 12), queries = clustered(30, 20, 13);
  const Hnsw index = ops::hnswBuild(job, items, options, false);
  Job stopped;
  stopped.listen([&](const Progress& p) {
    if (p.done >= 200) stopped.cancel();
  });
  CHECK_THROWS(ops::hnswChange(stopped, index, range(0, 500), range(0, 500), clustered(500, 20, 14), false), aborted);
  CHECK(index->live() == 500);
  CHECK(recall(job, index, items, queries, 10, 100) > 0.9);
}

#else

TEST(without_the_header_there_is_one_error) {
  Job job;
  CHECK(!ops::hnswAvailable());
  CHECK_THROWS(ops::hnswBuild(job, clustered(3, 4, 1), options, false), dependency);
}

#endif

TEST_MAIN()
