// The CUDA kernels of rating prediction under the SIMT emulator, and on the GPUs of this machine if there are any,
// against the CPU.
#include <cstdlib>
#include <numeric>

#include "models/factor_rows.h"
#include "test/emulated.h"
#include "test/sparse_problem.h"

using namespace topknot;
using topknot::test::alignedCpu;
using topknot::test::emulate;
using topknot::test::near;
using topknot::test::normals;
using topknot::test::Placed;
using topknot::test::Sparse;

namespace {

/// Rows [vector, b, 1, 0...] for users, [vector, 1, b, 0...] for items.
std::vector<float> startRows(int64_t rows, int64_t factors, bool users, uint64_t seed) {
  const int64_t stride = strideOf(factors + 2);
  const std::vector<float> random = normals(rows * (factors + 2), seed);
  std::vector<float> out(static_cast<size_t>(rows * stride), 0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < factors + 2; ++k) out[r * stride + k] = 0.3f * random[r * (factors + 2) + k];
    out[r * stride + (users ? factors + 1 : factors)] = 1;
  }
  return out;
}

struct Descent {
  std::vector<float> users, items;
  std::vector<double> errors;
  bool operator==(const Descent&) const = default;
};

/// One epoch over `strata` squared blocks: user u is in group u % strata, item i in i / 3 % strata.
Descent runSgd(const Backend& backend, const Exec& exec, const Sparse& m, int64_t factors, int64_t strata) {
  std::vector<RatingEntry> entries;
  std::vector<int64_t> borders{0};
  for (int64_t block = 0; block < strata * strata; ++block) {
    for (int64_t u = 0; u < m.rows; ++u) {
      for (int64_t e = m.indptr[u]; e < m.indptr[u + 1]; ++e) {
        if (u % strata != block / strata || m.indices[e] / 3 % strata != block % strata) continue;
        entries.push_back({static_cast<int32_t>(u), m.indices[e], m.values[e] - 1});
      }
    }
    borders.push_back(static_cast<int64_t>(entries.size()));
  }
  std::vector<int32_t> rounds(static_cast<size_t>(strata));
  std::iota(rounds.rbegin(), rounds.rend(), 0);
  Descent r{startRows(m.rows, factors, true, 1), startRows(m.cols, factors, false, 2),
            std::vector<double>(static_cast<size_t>(strata * strata), -1)};
  Placed memory(backend, exec);
  const RatingSgdArgs args{.entries = memory.place(entries),
                           .borders = memory.place(borders),
                           .rounds = memory.place(rounds),
                           .strata = strata,
                           .users = memory.place(r.users),
                           .items = memory.place(r.items),
                           .factors = factors,
                           .stride = strideOf(factors + 2),
                           .learningRate = 0.05f,
                           .regularization = 0.1f,
                           .squaredErrors = memory.place(r.errors)};
  check(backend.ratingSgd(exec, args));
  memory.fetch(r.users, args.users);
  memory.fetch(r.items, args.items);
  memory.fetch(r.errors, args.squaredErrors);
  return r;
}

bool nearErrors(const std::vector<double>& got, const std::vector<double>& exact, double tolerance) {
  for (size_t i = 0; i < exact.size(); ++i) {
    if (std::abs(got[i] - exact[i]) > tolerance * (1 + exact[i])) return false;
  }
  return got.size() == exact.size();
}

bool nearDescent(const Descent& got, const Descent& exact, float tolerance) {
  return near(got.users, exact.users, tolerance) && near(got.items, exact.items, tolerance) &&
         nearErrors(got.errors, exact.errors, static_cast<double>(tolerance));
}

struct Batch {
  std::vector<float> p, q, y, errors;
  std::vector<double> squares;
  bool operator==(const Batch&) const = default;
};

/// One batch of every other user, last to first.
Batch runSvdpp(const Backend& backend, const Exec& exec, const Sparse& m, int64_t factors) {
  std::vector<int32_t> users;
  std::vector<int64_t> starts, runs;
  std::vector<SvdppEntry> entries;
  for (int64_t u = m.rows - 1; u >= 0; u -= 2) {
    starts.push_back(static_cast<int64_t>(entries.size()));
    for (int64_t e = m.indptr[u]; e < m.indptr[u + 1]; ++e) {
      entries.push_back({m.indices[e], static_cast<int32_t>(users.size()), static_cast<int64_t>(entries.size())});
    }
    users.push_back(static_cast<int32_t>(u));
  }
  std::sort(entries.begin(), entries.end(), [](const SvdppEntry& a, const SvdppEntry& b) {
    return a.item != b.item ? a.item < b.item : a.entry < b.entry;
  });
  for (size_t e = 0; e < entries.size(); ++e) {
    if (e == 0 || entries[e].item != entries[e - 1].item) runs.push_back(static_cast<int64_t>(e));
  }
  const int64_t itemCount = static_cast<int64_t>(runs.size()), stride = strideOf(factors + 2);
  runs.push_back(static_cast<int64_t>(entries.size()));
  const std::vector<float> work(users.size() * static_cast<size_t>(stride), -3);
  Batch r{startRows(m.rows, factors, true, 1), startRows(m.cols, factors, false, 2),
          startRows(m.cols, factors, false, 3), std::vector<float>(entries.size(), -1),
          std::vector<double>(users.size(), -1)};
  for (int64_t i = 0; i < m.cols; ++i) r.y[i * stride + factors] = r.y[i * stride + factors + 1] = 0;
  Placed memory(backend, exec);
  const SvdppArgs args{.ratings = m.view(memory),
                       .users = memory.place(users),
                       .count = static_cast<int64_t>(users.size()),
                       .starts = memory.place(starts),
                       .entries = memory.place(entries),
                       .runs = memory.place(runs),
                       .itemCount = itemCount,
                       .p = memory.place(r.p),
                       .q = memory.place(r.q),
                       .y = memory.place(r.y),
                       .factors = factors,
                       .stride = stride,
                       .learningRate = 0.02f,
                       .regularization = 0.1f,
                       .z = memory.place(work),
                       .sums = memory.place(work),
                       .errors = memory.place(r.errors),
                       .squares = memory.place(r.squares)};
  check(backend.svdpp(exec, args));
  memory.fetch(r.p, args.p);
  memory.fetch(r.q, args.q);
  memory.fetch(r.y, args.y);
  memory.fetch(r.errors, args.errors);
  memory.fetch(r.squares, args.squares);
  return r;
}

bool nearBatch(const Batch& got, const Batch& exact, float tolerance) {
  return near(got.p, exact.p, tolerance) && near(got.q, exact.q, tolerance) && near(got.y, exact.y, tolerance) &&
         near(got.errors, exact.errors, tolerance) &&
         nearErrors(got.squares, exact.squares, static_cast<double>(tolerance));
}

std::vector<float> runScores(const Backend& backend, const Exec& exec, const Sparse& m, int64_t f, bool add) {
  const std::vector<float> x = normals(m.rows * f, 1), y = normals(m.cols * f, 2);
  std::vector<float> out(m.indices.size(), 0.5f);
  Placed memory(backend, exec);
  const CsrScoresArgs args{
      m.view(memory), {memory.place(x), m.rows, f}, {memory.place(y), m.cols, f}, add, memory.place(out)};
  check(backend.csrScores(exec, args));
  memory.fetch(out, args.out);
  return out;
}

}  // namespace

TEST(gradientDescent) {
  const Sparse m(30, 50, {0, 5, 44, 12});
  for (const int64_t factors : {0, 3, 15, 40, 140}) {
    for (const int64_t strata : {1, 4}) {
      const auto run = [&](const Backend& b, const Exec& e) { return runSgd(b, e, m, factors, strata); };
      CHECK(nearDescent(emulate(run), run(alignedCpu(), {}), 2e-5f));
    }
  }
}

TEST(svdppBatches) {
  const Sparse m(14, 50, {0, 5, 44, 1, 12});
  for (const int64_t factors : {1, 14, 40, 100, 140}) {
    const auto run = [&](const Backend& b, const Exec& e) { return runSvdpp(b, e, m, factors); };
    CHECK(nearBatch(emulate(run), run(alignedCpu(), {}), 2e-5f));
  }
}

TEST(scoresOfEntries) {
  const Sparse m(14, 50, {0, 5, 44, 1, 12});
  for (const int64_t f : {1, 18, 34, 68, 132}) {
    for (const bool add : {false, true}) {
      const auto run = [&](const Backend& b, const Exec& e) { return runScores(b, e, m, f, add); };
      CHECK(near(emulate(run), run(alignedCpu(), {}), 2e-6f));
    }
  }
}

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Exec exec{.device = all[i].device.index};
    const Backend& gpu = backendOf(all[i].device);
    const Sparse m(400, 900, {0, 50, 440, 1, 120});
    CHECK(nearDescent(runSgd(gpu, exec, m, 64, 4), runSgd(alignedCpu(), {}, m, 64, 4), 1e-3f));
    CHECK(nearBatch(runSvdpp(gpu, exec, m, 64), runSvdpp(alignedCpu(), {}, m, 64), 1e-3f));
    CHECK(near(runScores(gpu, exec, m, 64, true), runScores(alignedCpu(), {}, m, 64, true), 1e-5f));
  }
}

TEST_MAIN()
