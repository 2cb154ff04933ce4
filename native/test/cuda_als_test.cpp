// The CUDA kernels of ALS under the SIMT emulator, and on the GPUs of this machine if there are any, against the
// systems solved in float64 (Eigen).
#include <Eigen/Dense>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "core/random.h"
#include "test/check.h"
#include "test/emulated.h"
#include "test/placed.h"

using namespace topknot;
using topknot::test::emulate;
using topknot::test::Placed;

namespace {

/// Rows of 0 to 50 entries, and factors of the columns.
struct Problem {
  int64_t rows, cols, f;
  std::vector<int64_t> indptr{0};
  std::vector<int32_t> indices;
  std::vector<float> values, fixed, gram, reg, start, targets, offset;

  Problem(int64_t rows, int64_t cols, int64_t f, bool positive = true) : rows(rows), cols(cols), f(f) {
    Random random(static_cast<uint64_t>(f), 0);
    for (int64_t u = 0; u < rows; ++u) {
      const int64_t count = u % 4 == 0 ? 0 : static_cast<int64_t>(random.below(static_cast<uint64_t>(cols)));
      for (int64_t i = 0; i < cols; ++i) {
        if (i < count) indices.push_back(static_cast<int32_t>(i));
      }
      indptr.push_back(static_cast<int64_t>(indices.size()));
      reg.push_back(positive ? 0.1f + static_cast<float>(u) * 0.01f : -50.0f);
    }
    for (size_t e = 0; e < indices.size(); ++e) {
      values.push_back(2 - 2 * static_cast<float>(random.uniform()));
      targets.push_back(static_cast<float>(random.normal()));
    }
    for (int64_t i = 0; i < cols * f; ++i) fixed.push_back(static_cast<float>(random.normal()) * 0.3f);
    for (int64_t i = 0; i < rows * f; ++i) {
      start.push_back(static_cast<float>(random.normal()) * 0.1f);
      offset.push_back(static_cast<float>(random.normal()));
    }
    const Eigen::MatrixXf y = matrix();
    const Eigen::MatrixXf g = 0.1f * y.transpose() * y;
    gram.assign(g.data(), g.data() + f * f);
  }
  Eigen::MatrixXf matrix() const {
    return Eigen::Map<const Eigen::Matrix<float, -1, -1, Eigen::RowMajor>>(fixed.data(), cols, f);
  }
};

enum class Solve { cholesky, explicitCholesky, cg };

struct Result {
  std::vector<float> out;
  Status status;
  bool operator==(const Result& other) const {  // by bits: what a failed row holds may be NaN
    return status.code == other.status.code && std::memcmp(out.data(), other.out.data(), out.size() * 4) == 0;
  }
};

Result solveOn(const Backend& backend, const Exec& exec, const Problem& p, Solve how) {
  Result r{p.start, {}};
  Placed memory(backend, exec);
  AlsArgs args{.rows = {memory.place(p.indptr), memory.place(p.indices), memory.place(p.values), p.rows, p.cols},
               .fixed = {memory.place(p.fixed), p.cols, p.f},
               .gram = memory.place(p.gram),
               .reg = memory.place(p.reg),
               .bonus = 1,
               .steps = static_cast<int32_t>(4 * p.f),
               .out = memory.place(r.out)};
  if (how == Solve::explicitCholesky) {
    args.gram = nullptr;
    args.targets = memory.place(p.targets);
    args.offset = memory.place(p.offset);
  }
  r.status = how == Solve::cg ? backend.alsCg(exec, args) : backend.alsCholesky(exec, args);
  memory.fetch(r.out, args.out);
  return r;
}

struct Scores {
  double loss;
  std::vector<float> scores, sums;
  bool operator==(const Scores&) const = default;
};

/// The loss; scores; and scores added to the targets.
Scores scoresOn(const Backend& backend, const Exec& exec, const Problem& p) {
  Scores r{0, std::vector<float>(p.indices.size()), p.targets};
  Placed memory(backend, exec);
  const CsrView rows{memory.place(p.indptr), memory.place(p.indices), memory.place(p.values), p.rows, p.cols};
  const MatrixView x{memory.place(p.start), p.rows, p.f}, y{memory.place(p.fixed), p.cols, p.f};
  std::vector<double> loss(1);
  double* out = memory.place(loss);
  check(backend.alsLoss(exec, {rows, x, y, memory.place(p.gram), 0.25f, 1, out}));
  float *scores = memory.place(r.scores), *sums = memory.place(r.sums);
  check(backend.csrScores(exec, {rows, x, y, false, scores}));
  check(backend.csrScores(exec, {rows, x, y, true, sums}));
  memory.fetch(loss, out);
  memory.fetch(r.scores, scores);
  memory.fetch(r.sums, sums);
  r.loss = loss[0];
  return r;
}

double worstError(const Problem& p, const Result& r, Solve how) {
  const Eigen::MatrixXd y = p.matrix().cast<double>();
  double worst = 0;
  for (int64_t u = 0; u < p.rows; ++u) {
    Eigen::MatrixXd a = Eigen::MatrixXd::Identity(p.f, p.f) * static_cast<double>(p.reg[u]);
    Eigen::VectorXd b = Eigen::VectorXd::Zero(p.f);
    const bool ratings = how == Solve::explicitCholesky;
    if (!ratings) a += Eigen::Map<const Eigen::MatrixXf>(p.gram.data(), p.f, p.f).cast<double>();
    for (int64_t c = 0; ratings && c < p.f; ++c) b(c) = p.offset[u * p.f + c];
    for (int64_t e = p.indptr[u]; e < p.indptr[u + 1]; ++e) {
      const Eigen::VectorXd yi = y.row(p.indices[e]);
      a += static_cast<double>(p.values[e]) * yi * yi.transpose();
      b += static_cast<double>(ratings ? p.targets[e] : p.values[e] + 1) * yi;
    }
    Eigen::VectorXd x = Eigen::VectorXd::Zero(p.f);
    if (p.indptr[u] < p.indptr[u + 1]) x = a.llt().solve(b);
    double error = 0;
    for (int64_t c = 0; c < p.f; ++c) error = std::max(error, std::fabs(r.out[u * p.f + c] - x(c)));
    worst = std::max(worst, std::isnan(error) ? 1e30 : error / (1e-3 + x.norm()));
  }
  return worst;
}

}  // namespace

TEST(solvesTheSystems) {
  for (const int64_t f : {1, 7, 33, 64}) {
    const Problem p(f > 10 ? 3 : 20, 40, f);  // 20 rows: more than a block has
    for (const Solve how : {Solve::cholesky, Solve::explicitCholesky, Solve::cg}) {
      const Result r = emulate([&](const Backend& gpu, const Exec&) { return solveOn(gpu, {}, p, how); });
      CHECK(r.status.ok());
      CHECK(worstError(p, r, how) < 1e-4);
    }
  }
}

TEST(systemsThatSharedMemoryHasNoRoomFor) {
  static const Backend backend = cuda::emulatedBackend();
  const Problem large(2, 6, 640);
  for (const int64_t f : {144, 170}) {  // whole pieces of 16 bytes, and not
    const Problem p(2, 10, f);
    const Result r = solveOn(backend, {}, p, Solve::cholesky);
    CHECK(r.status.ok() && worstError(p, r, Solve::cholesky) < 1e-4);
  }
  const Result byCg = solveOn(backend, {}, large, Solve::cg);
  CHECK(byCg.status.ok() && worstError(large, byCg, Solve::cg) < 1e-4);
}

TEST(heavyRowsAreSharedByBlocks) {
  for (const int64_t f : {8, 34}) {
    const Problem p(8, 50, f);
    cuda::emulatedAlsPlan = {
        .heavy = 20, .heavyCg = 20, .workspace = 2 * 16 * 4 * f * (f + 8)};  // two heavy rows at a time
    for (const Solve how : {Solve::cholesky, Solve::explicitCholesky, Solve::cg}) {
      const Result r = emulate([&](const Backend& gpu, const Exec&) { return solveOn(gpu, {}, p, how); });
      CHECK(r.status.ok());
      CHECK(worstError(p, r, how) < 1e-4);
    }
    cuda::emulatedAlsPlan = {};
  }
}

TEST(notPositiveDefinite) {
  const Problem p(3, 10, 8, false);
  for (const Solve how : {Solve::cholesky, Solve::cg}) {
    const Result r = emulate([&](const Backend& gpu, const Exec&) { return solveOn(gpu, {}, p, how); });
    CHECK(r.status.code == static_cast<int32_t>(ErrorCode::value));
    CHECK(std::string(r.status.message).find("row 2") != std::string::npos);
  }
}

TEST(lossAndScores) {
  for (const int64_t f : {1, 7, 64, 200}) {
    const Problem p(f > 10 ? 5 : 20, 130, f);
    const Scores first = emulate([&](const Backend& gpu, const Exec&) { return scoresOn(gpu, {}, p); });
    const Scores cpu = scoresOn(cpuBackend(), {}, p);
    CHECK(std::fabs(first.loss - cpu.loss) < 1e-5 * std::fabs(cpu.loss));
    for (size_t e = 0; e < p.indices.size(); ++e) {
      const double most = 1e-6 * static_cast<double>(f + 8);
      CHECK(std::fabs(first.scores[e] - cpu.scores[e]) < most && std::fabs(first.sums[e] - cpu.sums[e]) < 2 * most);
    }
  }
}

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Exec exec{.device = all[i].device.index};
    for (const int64_t f : {16, 64, 128, 200}) {
      const Problem p(300, 200, f);
      for (const Solve how : {Solve::cholesky, Solve::explicitCholesky, Solve::cg}) {
        const Result r = solveOn(backendOf(all[i].device), exec, p, how);
        CHECK(r.status.ok() && worstError(p, r, how) < 1e-3);
      }
    }
  }
}

TEST_MAIN()
