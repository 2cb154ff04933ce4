#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/job_threads.h"
#include "core/thread_pool.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they need all of the address space
// First, while this process has no other thread: the child of a fork has only the one that forked.
TEST(doesWithoutThreadsThatTheSystemHasNot) {
  const pid_t child = fork();
  if (child == 0) {
    struct rlimit now {};
    getrlimit(RLIMIT_AS, &now);
    now.rlim_cur = 1 << 20;  // less than there is: nothing more can be mapped, no stack of a thread either
    setrlimit(RLIMIT_AS, &now);
    setThreadCount(8);
    int64_t covered = 0;
    parallelFor(1000, 1, Exec{}, [&](int64_t begin, int64_t end, int) { covered += end - begin; });
    bool refused = false, ran = false;
    try {
      startJob(0, [&] { ran = true; });
    } catch (const std::system_error&) {
      refused = true;
    }
    _exit(covered == 1000 && refused && !ran ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

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

TEST(theThreadCountMayChangeAtAnyTime) {
  std::atomic<bool> end{false};
  std::thread changer([&] {
    for (int i = 0; !end; ++i) setThreadCount(i % 2 ? 16 : 1);
  });
  const int64_t n = 20000;
  Tensor rows = Tensor::host<int32_t>({n}), cols = Tensor::host<int32_t>({n});
  for (int64_t i = 0; i < n; ++i) {
    rows.data<int32_t>()[i] = static_cast<int32_t>(i * 7919 % 10000);
    cols.data<int32_t>()[i] = static_cast<int32_t>(i * 31 % 97);
  }
  Job job;
  const Tensor fixed = Tensor::host<float>({97, 4}, true);
  for (int round = 0; round < 300; ++round) {
    const Csr m = ops::csrFromCoo(job, rows, cols, std::nullopt, 10000, 97, Duplicates::sum);
    AlsOptions options{.unobservedWeight = 1, .regularization = 1};
    options.solver = round % 2 ? AlsSolver::cg : AlsSolver::cholesky;
    CHECK(ops::alsSolve(job, m, fixed, std::nullopt, std::nullopt, options).rows() == 10000);
  }
  end = true;
  changer.join();
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
