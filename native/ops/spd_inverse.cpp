// The sweep operator, in blocks (Goodnight, "A tutorial on the SWEEP operator", The American Statistician 1979). With K
// the block of rows being swept and D = A_KK, for all other rows I and J:
//   A_IJ -= A_IK D⁻¹ A_KJ,  A_IK = A_IK D⁻¹,  A_KK = -D⁻¹
// and once all are swept A holds -A⁻¹. It stays symmetric throughout, so the lower triangle is enough, and D is a Schur
// complement of a positive definite matrix, so no pivoting is needed. Next to Cholesky, inversion of the factor and its
// product with itself this is one loop instead of three, for the same n³ operations.
#include "ops/spd_inverse.h"

#include <Eigen/Cholesky>
#include <algorithm>

#include "backend/registry.h"
#include "core/tensor.h"

namespace topknot {
namespace {

using MatrixF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int64_t rowsAtOnce = 960;  // of the update: what lies above the diagonal in them is computed in vain
constexpr int64_t tile = 64;         // of transpositions

void product(Job& job, const MatmulArgs& args) {
  run(cpuBackend(), &Backend::matmul, "matmul", job.exec(), args);
  job.checkCancelled();
}

/// Calls body(i, j) for the tiles [i, i + tile) x [j, j + tile) of the lower triangle.
template <typename Body>
void eachTile(Job& job, int64_t n, Body&& body) {
  const int64_t tiles = (n + tile - 1) / tile;
  parallelFor(tiles, 1, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t j = 0; j <= t; ++j) body(t * tile, j * tile);
    }
  });
  job.checkCancelled();
}

class Sweep {
 public:
  Sweep(Job& job, float* a, int64_t n, int64_t block)
      : job_(job), a_(a), n_(n), panel_(Tensor::host<float>({n, block})), scaled_(Tensor::host<float>({n, block})) {}

  /// Sweeps rows [k, k + size); false when they show that the matrix is not positive definite.
  bool rows(int64_t k, int64_t size) {
    const Eigen::Map<const MatrixF, 0, Eigen::OuterStride<>> pivot(a_ + k * n_ + k, size, size,
                                                                   Eigen::OuterStride<>(n_));
    const Eigen::LLT<Eigen::MatrixXd, Eigen::Lower> factor(pivot.cast<double>());
    if (factor.info() != Eigen::Success || !(factor.matrixLLT().diagonal().minCoeff() > 0)) return false;
    const MatrixF inverse = factor.solve(Eigen::MatrixXd::Identity(size, size)).cast<float>();
    if (!inverse.allFinite()) return false;

    takePanel(k, size);
    float *panel = panel_.data<float>(), *scaled = scaled_.data<float>();
    product(
        job_,
        {.m = n_, .n = size, .k = size, .a = {panel, size}, .b = {inverse.data(), size}, .c = scaled, .cStride = size});
    for (int64_t i = 0; i < n_; i += rowsAtOnce) {
      const int64_t count = std::min(rowsAtOnce, n_ - i);
      product(job_, {.m = count,
                     .n = i + count,
                     .k = size,
                     .a = {scaled + i * size, size},
                     .b = {panel, size, true},
                     .c = a_ + i * n_,
                     .cStride = n_,
                     .alpha = -1,
                     .beta = 1});
    }
    putPanel(k, size);
    Eigen::Map<MatrixF, 0, Eigen::OuterStride<>>(a_ + k * n_ + k, size, size, Eigen::OuterStride<>(n_)) = -inverse;
    return true;
  }

 private:
  /// panel = A_IK for all rows I, those of the block itself zero: the update leaves them as they are.
  void takePanel(int64_t k, int64_t size) {
    float* panel = panel_.data<float>();
    parallelFor(n_, tile, job_.exec(), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        if (i >= k + size) std::copy_n(a_ + i * n_ + k, size, panel + i * size);
        else if (i >= k) std::fill_n(panel + i * size, size, 0.0f);
      }
      for (int64_t c = 0; c < size; ++c) {
        for (int64_t i = begin; i < std::min(end, k); ++i) panel[i * size + c] = a_[(k + c) * n_ + i];
      }
    });
    job_.checkCancelled();
  }

  /// A_IK = scaled, for all rows I but those of the block.
  void putPanel(int64_t k, int64_t size) {
    const float* scaled = scaled_.data<float>();
    parallelFor(n_, tile, job_.exec(), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = std::max(begin, k + size); i < end; ++i) std::copy_n(scaled + i * size, size, a_ + i * n_ + k);
      for (int64_t c = 0; c < size; ++c) {
        for (int64_t i = begin; i < std::min(end, k); ++i) a_[(k + c) * n_ + i] = scaled[i * size + c];
      }
    });
    job_.checkCancelled();
  }

  Job& job_;
  float* a_;
  int64_t n_;
  Tensor panel_, scaled_;  // [n, block]
};

}  // namespace

int64_t inverseScratchBytes(int64_t n, int64_t block) {
  return 2 * n * std::min(block, n) * static_cast<int64_t>(sizeof(float));
}

void invertPositiveDefinite(Job& job, float* a, int64_t n, const char* what, const std::function<void(int64_t)>& done,
                            int64_t block) {
  block = std::min(block, n);
  {
    Sweep sweep(job, a, n, block);
    for (int64_t k = 0; k < n; k += block) {
      const int64_t size = std::min(block, n - k);
      require(sweep.rows(k, size), ErrorCode::value, what, " is not positive definite, or nearly not, as rows ", k,
              " to ", k + size - 1, " show: use a larger regularization");
      done(k + size);
    }
  }
  eachTile(job, n, [&](int64_t i0, int64_t j0) {
    for (int64_t i = i0; i < std::min(i0 + tile, n); ++i) {
      for (int64_t j = j0; j < std::min(j0 + tile, i + 1); ++j) a[j * n + i] = a[i * n + j] = -a[i * n + j];
    }
  });
}

}  // namespace topknot
