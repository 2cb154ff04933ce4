// The eigenvectors of a Gram matrix, for als_cholesky.cpp; in a file of its own because Eigen is not compiled per
// target.
#pragma once
#include <cstdint>
#include <vector>

namespace topknot {

/// gram = Q diag(values) Qᵀ, computed in float64.
struct EigenBasis {
  std::vector<float> q;           // [f, f] row-major: column j is the eigenvector of values[j]
  std::vector<float> transposed;  // qᵀ
  std::vector<float> values;      // rising; never negative, as a Gram matrix has no negative eigenvalue

  EigenBasis() = default;
  EigenBasis(const float* gram, int64_t f);
};

}  // namespace topknot
