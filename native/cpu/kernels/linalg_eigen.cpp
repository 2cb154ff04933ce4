#include "cpu/kernels/linalg_eigen.h"

#include <Eigen/Cholesky>

#include "cpu/kernels/linalg_batch.h"

namespace topknot {
namespace {

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
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

template struct EigenLinalg<float>;
template struct EigenLinalg<double>;

}  // namespace topknot
