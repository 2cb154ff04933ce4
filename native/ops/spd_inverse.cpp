// The sweep operator, in blocks (Goodnight, "A tutorial on the SWEEP operator", The American Statistician 1979). With K
// the block of rows being swept and D = A_KK, for all other rows I and J:
//   A_IJ -= A_IK D⁻¹ A_KJ,  A_IK = A_IK D⁻¹,  A_KK = -D⁻¹
// and once all are swept A holds -A⁻¹. It stays symmetric throughout, so the lower triangle is enough, and D is a Schur
// complement of a positive definite matrix, so no pivoting is needed. Next to Cholesky, inversion of the factor and its
// product with itself this is one loop instead of three, for the same n³ operations.
#include "ops/spd_inverse.h"

#include <Eigen/Cholesky>
#include <algorithm>

#include "backend/memory.h"
#include "backend/registry.h"

namespace topknot {
namespace {

using MatrixF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int64_t rowsAtOnce = 960;  // of the update: what lies above the diagonal in them is computed in vain

class Sweep {
 public:
  Sweep(Job& job, const Tensor& a, int64_t block)
      : job_(job),
        device_(a.device()),
        a_(a.data<float>()),
        n_(a.rows()),
        panel_(empty<float>(device_, {n_, block})),
        scaled_(empty<float>(device_, {n_, block})) {}

  /// Sweeps rows [k, k + size); false when they show that the matrix is not positive definite.
  bool rows(int64_t k, int64_t size) {
    const Tensor block = blockAt(k, size);
    const Eigen::Map<const MatrixF> pivot(block.data<float>(), size, size);
    const Eigen::LLT<Eigen::MatrixXd, Eigen::Lower> factor(pivot.cast<double>());
    if (factor.info() != Eigen::Success || !(factor.matrixLLT().diagonal().minCoeff() > 0)) return false;
    const Tensor made = Tensor::host<float>({size, size});
    Eigen::Map<MatrixF> inverse(made.data<float>(), size, size);
    inverse = factor.solve(Eigen::MatrixXd::Identity(size, size)).cast<float>();
    if (!inverse.allFinite()) return false;

    // panel = A_IK for all rows I. What those of the block itself hold goes into nothing but rows and columns of the
    // block, which are written afterwards.
    float *panel = panel_.data<float>(), *scaled = scaled_.data<float>();
    copy({.rows = n_ - k, .cols = size, .from = at(k, k), .fromStride = n_, .to = panel + k * size, .toStride = size});
    copy({k, size, at(k, 0), n_, panel, size, true});
    const Tensor placed = copyTo(made, device_);
    product({.m = n_,
             .n = size,
             .k = size,
             .a = {panel, size},
             .b = {placed.data<float>(), size},
             .c = scaled,
             .cStride = size});
    for (int64_t i = 0; i < n_; i += rowsAtOnce) {
      const int64_t count = std::min(rowsAtOnce, n_ - i);
      product({.m = count,
               .n = i + count,
               .k = size,
               .a = {scaled + i * size, size},
               .b = {panel, size, true},
               .c = at(i, 0),
               .cStride = n_,
               .alpha = -1,
               .beta = 1});
    }
    // A_IK = scaled, and the block itself.
    const int64_t below = k + size;
    copy({n_ - below, size, scaled + below * size, size, at(below, k), n_});
    copy({size, k, scaled, size, at(k, 0), n_, true});
    copy({size, size, placed.data<float>(), size, at(k, k), n_, false, -1});
    return true;
  }

  /// A becomes -A, and its upper triangle the mirror of the lower one. Rows [k, k + size), and those below in its
  /// columns.
  void finish(int64_t k, int64_t size) {
    const Tensor block = blockAt(k, size);
    float* m = block.data<float>();
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j <= i; ++j) m[j * size + i] = m[i * size + j] = -m[i * size + j];
    }
    const Tensor placed = copyTo(block, device_);
    copy({size, size, placed.data<float>(), size, at(k, k), n_});
    const int64_t below = k + size;
    copy({size, n_ - below, at(below, k), n_, at(k, below), n_, true, -1});
    copy({n_ - below, size, at(below, k), n_, at(below, k), n_, false, -1});
  }

 private:
  float* at(int64_t row, int64_t col) const { return a_ + row * n_ + col; }

  /// The square of the diagonal at k, on the host.
  Tensor blockAt(int64_t k, int64_t size) {
    const Tensor block = empty<float>(device_, {size, size});
    copy({size, size, at(k, k), n_, block.data<float>(), size});
    return copyTo(block, Device{});
  }

  void copy(const CopyMatrixArgs& args) {
    run(device_, &Backend::copyMatrix, "copyMatrix", job_.exec(), args);
    job_.checkCancelled();
  }

  void product(const MatmulArgs& args) {
    run(device_, &Backend::matmul, "matmul", job_.exec(), args);
    job_.checkCancelled();
  }

  Job& job_;
  Device device_;
  float* a_;
  int64_t n_;
  Tensor panel_, scaled_;  // [n, block]
};

}  // namespace

int64_t inverseScratchBytes(int64_t n, int64_t block) {
  return 2 * n * std::min(block, n) * static_cast<int64_t>(sizeof(float));
}

void invertPositiveDefinite(Job& job, const Tensor& a, const char* what, const std::function<void(int64_t)>& done,
                            int64_t block) {
  const int64_t n = a.rows();
  block = std::min(block, n);
  Sweep sweep(job, a, block);
  for (int64_t k = 0; k < n; k += block) {
    const int64_t size = std::min(block, n - k);
    require(sweep.rows(k, size), ErrorCode::value, what, " is not positive definite, or nearly not, as rows ", k,
            " to ", k + size - 1, " show: use a larger regularization");
    done(k + size);
  }
  for (int64_t k = 0; k < n; k += block) sweep.finish(k, std::min(block, n - k));
}

}  // namespace topknot
