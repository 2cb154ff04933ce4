// The approximate index: distances on every instruction set, graphs built alike, changes under searches.
#include <atomic>
#include <cmath>
#include <set>
#include <thread>

#include "backend/registry.h"
#include "test/hnsw_fixture.h"

using namespace topknot;

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

TEST(searches_go_on_while_it_changes) {
  const Tensor items = clustered(800, 20, 9), more = clustered(800, 20, 10);
  Job job;
  // From a mapped state: the first change swaps the graph for a copy under the searches.
  const HnswState state = ops::hnswState(job, ops::hnswBuild(job, items, options, true));
  const Hnsw index = ops::hnswLoad(job, state, options, true).index;
  std::atomic<bool> done{false};
  std::atomic<int64_t> answers{0};
  std::vector<std::thread> searchers;
  for (int i = 0; i < 3; ++i) {
    searchers.emplace_back([&, i] {
      Job own(1);
      const Tensor queries = clustered(8, 20, static_cast<uint64_t>(20 + i));
      do {
        const HnswFound found = ops::hnswSearch(own, index, queries, 10, 40, std::nullopt);
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
    CHECK(ops::hnswCompact(job, index, true)->live() == 800);
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
