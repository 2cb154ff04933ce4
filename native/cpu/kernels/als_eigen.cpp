#include "cpu/kernels/als_eigen.h"

#include <Eigen/Eigenvalues>

#include "core/error.h"

namespace topknot {

EigenBasis::EigenBasis(const float* gram, int64_t f) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::MatrixXd m = Eigen::Map<const Matrix>(gram, f, f).cast<double>();
  require(m.allFinite(), ErrorCode::value,
          "ALS: the Gram matrix of the factors is not finite: use a larger regularization or smaller weights");
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(m);
  require(solver.info() == Eigen::Success, ErrorCode::internal,
          "ALS: the eigenvectors of the Gram matrix were not found");
  q.resize(static_cast<size_t>(f * f));
  transposed.resize(q.size());
  values.resize(static_cast<size_t>(f));
  Eigen::Map<Matrix>(q.data(), f, f) = solver.eigenvectors().cast<float>();
  Eigen::Map<Matrix>(transposed.data(), f, f) = solver.eigenvectors().transpose().cast<float>();
  Eigen::Map<Eigen::VectorXf>(values.data(), f) = solver.eigenvalues().cwiseMax(0.0).cast<float>();
}

}  // namespace topknot
