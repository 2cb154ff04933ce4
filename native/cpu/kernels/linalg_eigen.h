// Decompositions of one larger matrix by Eigen, in a file of its own because Eigen is compiled for the baseline alone.
// Each returns the status of the matrix (backend/linalg_args.h); for another than `solved` the output means nothing.
#pragma once
#include <cstdint>

namespace topknot {

/// Instantiated for float and double.
template <class T>
struct EigenLinalg {
  /// a = L Lᵀ. factor may be a.
  static int32_t cholesky(const T* a, int64_t n, T* factor);
  /// L Lᵀ x = b; b, x [n, rhs], may be one.
  static void choleskySolve(const T* factor, int64_t n, const T* b, int64_t rhs, T* x);
  /// By LU with partial pivoting; x may be b.
  static int32_t luSolve(const T* a, int64_t n, const T* b, int64_t rhs, T* x);
  /// q [m, k], r [k, n], k = min(m, n).
  static int32_t qr(const T* a, int64_t m, int64_t n, T* q, T* r);
  static int32_t eigh(const T* a, int64_t n, T* values, T* vectors);
  /// u [m, k], values [k], vt [k, n].
  static int32_t svd(const T* a, int64_t m, int64_t n, T* u, T* values, T* vt);
};

}  // namespace topknot
