// What the kernels of dense batched algebra are given: matrices of one shape, one after the other, row-major, float32
// or float64. Every matrix has a status of its own; what a matrix with another status than `solved` was to give is NaN.
// The result of a matrix is a function of it alone, never of its place in the batch.
#pragma once
#include <cstdint>

namespace topknot {

enum class Precision : int32_t { float32, float64 };

/// A positive status k names the pivot that failed, counted from 1: for Cholesky the first that is not positive (so
/// that the leading k x k minor is not positive definite), for LU one that is zero.
enum LinalgStatus : int32_t {
  solved = 0,
  notFinite = -1,    // NaN or infinite: an element that is read, or the result, which overflows
  notConverged = -2  // of an iteration (eigh, svd)
};

/// a = L Lᵀ, L lower triangular with zeros above. Only the lower triangle of a is read.
struct CholeskyArgs {
  Precision precision;
  int64_t batch, n;
  const void* a;    // [batch, n, n]
  void* factor;     // [batch, n, n]; may be a
  int32_t* status;  // [batch]
};

/// a x = b. a is positive definite and only its lower triangle is read; or a is the factor L that CholeskyArgs made.
struct CholeskySolveArgs {
  Precision precision;
  int64_t batch, n, rhs;
  const void* a;  // [batch, n, n]
  bool factored;
  const void* b;    // [batch, n, rhs]
  void* x;          // [batch, n, rhs]; may be b
  int32_t* status;  // [batch]
};

/// a x = b by LU with partial pivoting.
struct LuSolveArgs {
  Precision precision;
  int64_t batch, n, rhs;
  const void* a;    // [batch, n, n]
  const void* b;    // [batch, n, rhs]
  void* x;          // [batch, n, rhs]; may be b
  int32_t* status;  // [batch]
};

/// a = q r, k = min(m, n): the columns of q are orthonormal, r is upper triangular, of either sign on its diagonal.
struct QrArgs {
  Precision precision;
  int64_t batch, m, n;
  const void* a;    // [batch, m, n]
  void* q;          // [batch, m, k]
  void* r;          // [batch, k, n]
  int32_t* status;  // [batch]
};

/// a = V diag(values) Vᵀ for symmetric a, of which the lower triangle is read. Values rise; V's columns are
/// orthonormal.
struct EighArgs {
  Precision precision;
  int64_t batch, n;
  const void* a;    // [batch, n, n]
  void* values;     // [batch, n]
  void* vectors;    // [batch, n, n]
  int32_t* status;  // [batch]
};

/// a = u diag(values) vt, k = min(m, n). Values fall and are never negative; u's columns and vt's rows are orthonormal.
struct SvdArgs {
  Precision precision;
  int64_t batch, m, n;
  const void* a;    // [batch, m, n]
  void* u;          // [batch, m, k]
  void* values;     // [batch, k]
  void* vt;         // [batch, k, n]
  int32_t* status;  // [batch]
};

}  // namespace topknot
