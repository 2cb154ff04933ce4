// The CUDA kernels of nonnegative matrix factorization under the SIMT emulator, and on the GPUs of this machine if
// there are any, against the CPU.
#include <cmath>
#include <cstdlib>

#include "cuda/kernels/nmf.cuh"
#include "test/emulated.h"
#include "test/sparse_problem.h"

using namespace topknot;
using topknot::test::emulate;
using topknot::test::near;
using topknot::test::normals;
using topknot::test::Placed;
using topknot::test::Sparse;

namespace {

struct Problem {
  Sparse rows;
  int64_t f;
  std::vector<float> fixed, gram, sums, reg, start;

  Problem(int64_t count, int64_t cols, int64_t f, const std::vector<int64_t>& lengths)
      : rows(count, cols, lengths), f(f), gram(static_cast<size_t>(f * f)), sums(static_cast<size_t>(f)) {
    for (const float x : normals(cols * f, 2)) fixed.push_back(std::max(0.0f, x));
    for (const float x : normals(count * f, 3)) start.push_back(std::abs(x));
    for (int64_t r = 0; r < count; ++r) reg.push_back(0.01f * static_cast<float>(r % 3));
    for (int64_t i = 0; i < cols; ++i) {
      for (int64_t k = 0; k < f; ++k) {
        sums[k] += fixed[i * f + k];
        for (int64_t l = 0; l < f; ++l) gram[k * f + l] += fixed[i * f + k] * fixed[i * f + l];
      }
    }
  }
};

std::vector<float> runNmf(const Backend& backend, const Exec& exec, const Problem& p, NmfLoss loss, bool all,
                          int32_t passes) {
  std::vector<float> out = p.start;
  Placed memory(backend, exec);
  const NmfArgs args{.rows = p.rows.view(memory),
                     .fixed = {memory.place(p.fixed), p.rows.cols, p.f},
                     .gram = all && loss == NmfLoss::frobenius ? memory.place(p.gram) : nullptr,
                     .sums = all && loss == NmfLoss::kl ? memory.place(p.sums) : nullptr,
                     .reg = memory.place(p.reg),
                     .loss = loss,
                     .passes = passes,
                     .out = memory.place(out)};
  check(backend.nmf(exec, args));
  memory.fetch(out, args.out);
  return out;
}

void checkSweeps(const Problem& p, int32_t passes, float tolerance) {
  for (const NmfLoss loss : {NmfLoss::frobenius, NmfLoss::kl}) {
    for (const bool all : {true, false}) {
      const auto run = [&](const Backend& b, const Exec& e) { return runNmf(b, e, p, loss, all, passes); };
      const std::vector<float> got = emulate(run), exact = run(cpuBackend(), {});
      const bool ok = near(got, exact, tolerance) && got != p.start;
      CHECK(ok);
      if (!ok)
        std::printf("  loss %d, all cells %d, %ld factors\n", static_cast<int>(loss), all, static_cast<long>(p.f));
      for (const float x : got) CHECK(x >= 0);
    }
  }
}

}  // namespace

TEST(sweeps) {
  for (const int64_t f : {1, 5, 33, 40}) checkSweeps(Problem(7, 60, f, {0, 3, 40, 17, 1}), 1, 1e-4f);
}

TEST(manyPasses) { checkSweeps(Problem(4, 50, 6, {30, 0, 45}), 20, 1e-3f); }

TEST(longRows) { checkSweeps(Problem(3, cuda::nmfLong + 200, 3, {cuda::nmfLong + 70, 5, cuda::nmfLong}), 1, 1e-4f); }

TEST(nothingToDo) {
  for (const NmfLoss loss : {NmfLoss::frobenius, NmfLoss::kl}) {
    const Problem none(0, 5, 3, {1}), empty(4, 5, 3, {0});
    const auto run = [&](const Problem& p) {
      return emulate([&](const Backend& b, const Exec& e) { return runNmf(b, e, p, loss, false, 1); });
    };
    CHECK(run(none).empty());
    CHECK(run(empty) == std::vector<float>(12, 0));
  }
}

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Exec exec{.device = all[i].device.index};
    const Problem p(500, 3000, 32, {0, 30, 2000, 17, 1});
    for (const NmfLoss loss : {NmfLoss::frobenius, NmfLoss::kl}) {
      for (const bool cells : {true, false}) {
        const auto run = [&](const Backend& b, const Exec& e) { return runNmf(b, e, p, loss, cells, 1); };
        CHECK(near(run(backendOf(all[i].device), exec), run(cpuBackend(), {}), 1e-3f));
      }
    }
  }
}

TEST_MAIN()
