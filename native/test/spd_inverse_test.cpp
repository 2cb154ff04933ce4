// The in-place inverse against Eigen's in float64, over blocks and tails, for every instruction set of this machine.
#include <Eigen/Dense>
#include <cstring>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/spd_inverse.h"
#include "test/check.h"

using namespace topknot;
using MatrixF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

namespace {

MatrixF positiveDefinite(int64_t n) {
  Eigen::MatrixXd x(n + 20, n);
  Random random(1, static_cast<uint64_t>(n));
  for (int64_t i = 0; i < x.size(); ++i) x.data()[i] = random.normal();
  return (x.transpose() * x + 10 * Eigen::MatrixXd::Identity(n, n)).cast<float>();
}

/// The matrix as a tensor that shares its memory.
Tensor viewOf(MatrixF& m) {
  Tensor t{.dtype = DType::float32, .shape = {m.rows(), m.cols()}};
  t.buffer = std::make_shared<Buffer>(m.data(), t.bytes(), Device{}, nullptr);
  return t;
}

}  // namespace

TEST(inverse) {
  const int before = threadCount();
  for (const auto& [n, block] :
       {std::pair<int64_t, int64_t>{1, 512}, {5, 2}, {64, 64}, {130, 32}, {200, 512}, {1100, 256}}) {
    const MatrixF a = positiveDefinite(n);
    const Eigen::MatrixXd exact = a.cast<double>().llt().solve(Eigen::MatrixXd::Identity(n, n));
    for (const Backend* backend : cpuBackends()) {
      useIsa(backend->isa);
      MatrixF runs[2] = {a, a};
      for (const int threads : {1, 4}) {
        setThreadCount(threads);
        MatrixF& m = runs[threads == 4];
        m.triangularView<Eigen::StrictlyUpper>().setConstant(7);  // not to be read
        Job job;
        int64_t heard = 0;
        invertPositiveDefinite(
            job, viewOf(m), "a", [&](int64_t rows) { heard = rows; }, block);
        CHECK(heard == n);
      }
      CHECK(std::memcmp(runs[0].data(), runs[1].data(), static_cast<size_t>(n * n) * sizeof(float)) == 0);
      CHECK((runs[0].cast<double>() - exact).norm() <= 1e-5 * exact.norm());
      CHECK(runs[0] == runs[0].transpose());
    }
  }
  useIsa(cpuBackends().front()->isa);
  setThreadCount(before);
}

TEST(refuses_what_is_not_positive_definite) {
  for (const int64_t wrong : {0, 40, 99}) {
    MatrixF a = positiveDefinite(100);
    a(wrong, wrong) = -1;
    Job job;
    CHECK_THROWS(invertPositiveDefinite(
                     job, viewOf(a), "a", [](int64_t) {}, 32),
                 value);
  }
  MatrixF a = positiveDefinite(100);
  Job job;
  job.cancel();
  CHECK_THROWS(invertPositiveDefinite(job, viewOf(a), "a", [](int64_t) {}), aborted);
}

TEST_MAIN()
