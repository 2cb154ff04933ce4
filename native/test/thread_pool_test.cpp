#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/thread_pool.h"
#include "test/check.h"

using namespace topknot;

TEST(coversEveryIndexOnce) {
  for (int threads : {1, 2, 4, 7}) {
    setThreadCount(threads);
    for (int64_t n : {0, 1, 2, 63, 1000}) {
      std::vector<std::atomic<int>> hits(n);
      parallelFor(n, 7, Exec{}, [&](int64_t begin, int64_t end, int slot) {
        CHECK(slot >= 0 && slot < threads);
        for (int64_t i = begin; i < end; ++i) ++hits[i];
      });
      for (auto& h : hits) CHECK(h == 1);
    }
  }
}

TEST(slotsBelongToOneThreadAtATime) {
  setThreadCount(4);
  std::atomic<int> inside[4] = {};
  for (int round = 0; round < 50; ++round) {
    parallelFor(200, 1, Exec{}, [&](int64_t, int64_t, int slot) {
      CHECK(++inside[slot] == 1);
      std::this_thread::yield();
      --inside[slot];
    });
  }
}

TEST(rethrowsAndRecovers) {
  setThreadCount(4);
  bool caught = false;
  try {
    parallelFor(100, 1, Exec{}, [](int64_t begin, int64_t, int) {
      if (begin == 42) throw std::runtime_error("42");
    });
  } catch (const std::runtime_error&) {
    caught = true;
  }
  CHECK(caught);
  std::atomic<int> sum{0};
  parallelFor(100, 1, Exec{}, [&](int64_t, int64_t, int) { ++sum; });
  CHECK(sum == 100);
}

TEST(manyCallersAtOnce) {
  setThreadCount(4);
  std::atomic<int64_t> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 8; ++c) {
    callers.emplace_back([&, c] {
      for (int round = 0; round < 100; ++round) {
        parallelFor(64, 1, Exec{.priority = c % 2}, [&](int64_t begin, int64_t end, int) { total += end - begin; });
      }
    });
  }
  for (auto& t : callers) t.join();
  CHECK(total == 8 * 100 * 64);
}

TEST(cancelStopsEarly) {
  setThreadCount(4);
  std::atomic<bool> cancel{false};
  std::atomic<int64_t> ran{0};
  parallelFor(1 << 20, 1, Exec{.cancel = &cancel}, [&](int64_t, int64_t, int) {
    if (++ran == 100) cancel = true;
  });
  CHECK(ran < 1 << 20);
}

TEST(nestedCallsRunInline) {
  setThreadCount(4);
  std::atomic<int> sum{0};
  parallelFor(8, 1, Exec{}, [&](int64_t, int64_t, int) {
    parallelFor(10, 1, Exec{}, [&](int64_t, int64_t, int slot) {
      CHECK(slot == 0);
      ++sum;
    });
  });
  CHECK(sum == 80);
}

TEST_MAIN()
