#include "cpu/kernels/linalg_eigen.h"

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/LU>
#include <Eigen/QR>
#include <Eigen/SVD>

#include "cpu/kernels/linalg_batch.h"

namespace topknot {
namespace {

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using ColumnMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
template <class T>
using Input = Eigen::Map<const Matrix<T>>;
template <class T>
using Output = Eigen::Map<Matrix<T>>;

}  // namespace

template <class T>
int32_t EigenLinalg<T>::cholesky(const T* a, int64_t n, T* factor) {
  if (!lowerFinite(a, n)) return notFinite;
  Output<T> l(factor, n, n);
  l = Matrix<T>(Input<T>(a, n, n).template triangularView<Eigen::Lower>());
  // Eigen::LLT does not tell which pivot failed; what it calls does.
  const Eigen::Index failed = Eigen::internal::llt_inplace<T, Eigen::Lower>::blocked(l);
  if (failed >= 0) return static_cast<int32_t>(failed + 1);
  return allFinite(factor, n * n) ? solved : notFinite;
}

template <class T>
void EigenLinalg<T>::choleskySolve(const T* factor, int64_t n, const T* b, int64_t rhs, T* x) {
  Output<T> out(x, n, rhs);
  if (x != b) out = Input<T>(b, n, rhs);
  const Input<T> l(factor, n, n);
  l.template triangularView<Eigen::Lower>().solveInPlace(out);
  l.transpose().template triangularView<Eigen::Upper>().solveInPlace(out);
}

template <class T>
int32_t EigenLinalg<T>::luSolve(const T* a, int64_t n, const T* b, int64_t rhs, T* x) {
  if (!allFinite(a, n * n) || !allFinite(b, n * rhs)) return notFinite;
  const Eigen::PartialPivLU<Matrix<T>> lu(Input<T>(a, n, n));
  for (int64_t i = 0; i < n; ++i) {
    if (lu.matrixLU()(i, i) == T{0}) return static_cast<int32_t>(i + 1);
  }
  Output<T>(x, n, rhs) = Matrix<T>(lu.solve(Input<T>(b, n, rhs)));
  return allFinite(x, n * rhs) ? solved : notFinite;
}

template <class T>
int32_t EigenLinalg<T>::qr(const T* a, int64_t m, int64_t n, T* q, T* r) {
  if (!allFinite(a, m * n)) return notFinite;
  const int64_t k = std::min(m, n);
  const Input<T> in(a, m, n);
  const T scale = in.size() > 0 ? scaleFor(in.cwiseAbs().maxCoeff()) : T{1};  // Eigen squares the elements
  const Eigen::HouseholderQR<ColumnMajor<T>> made(in * scale);
  Output<T>(q, m, k) = ColumnMajor<T>(made.householderQ() * ColumnMajor<T>::Identity(m, k));
  Output<T>(r, k, n) = ColumnMajor<T>(made.matrixQR().topRows(k) / scale).template triangularView<Eigen::Upper>();
  return allFinite(q, m * k) && allFinite(r, k * n) ? solved : notFinite;
}

template <class T>
int32_t EigenLinalg<T>::eigh(const T* a, int64_t n, T* values, T* vectors) {
  if (!lowerFinite(a, n)) return notFinite;
  const Eigen::SelfAdjointEigenSolver<ColumnMajor<T>> made(Input<T>(a, n, n));  // reads the lower triangle
  if (made.info() != Eigen::Success) return notConverged;
  Eigen::Map<Eigen::Vector<T, Eigen::Dynamic>>(values, n) = made.eigenvalues();
  Output<T>(vectors, n, n) = made.eigenvectors();
  return allFinite(values, n) && allFinite(vectors, n * n) ? solved : notFinite;
}

template <class T>
int32_t EigenLinalg<T>::svd(const T* a, int64_t m, int64_t n, T* u, T* values, T* vt) {
  if (!allFinite(a, m * n)) return notFinite;
  const int64_t k = std::min(m, n);
  if (k == 0) return solved;  // Eigen reads what is not there
  const Eigen::BDCSVD<ColumnMajor<T>> made(Input<T>(a, m, n), Eigen::ComputeThinU | Eigen::ComputeThinV);
  if (made.info() != Eigen::Success) return notConverged;
  Output<T>(u, m, k) = made.matrixU();
  Eigen::Map<Eigen::Vector<T, Eigen::Dynamic>>(values, k) = made.singularValues();
  Output<T>(vt, k, n) = made.matrixV().transpose();
  return allFinite(u, m * k) && allFinite(values, k) && allFinite(vt, k * n) ? solved : notFinite;
}

template struct EigenLinalg<float>;
template struct EigenLinalg<double>;

}  // namespace topknot
