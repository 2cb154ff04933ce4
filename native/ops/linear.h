// What the linear models are made of: the scores of a query, a sparse row of weights over n things, are
//   score_j = Σ_i query_i W_ij
// with W sparse or dense. Queries are histories and W items × items (item neighbours, EASE), or queries are nearest
// users and W their interactions (user neighbours).
#pragma once
#include <optional>

#include "core/csr.h"
#include "core/fields.h"
#include "core/tensor.h"

namespace topknot {

/// W, as one of the two.
struct LinearWeights {
  std::optional<Csr> sparse;
  std::optional<Tensor> dense;  // float32 [n, items]

  int64_t rows() const { return sparse ? sparse->rows() : dense->rows(); }
  int64_t items() const { return sparse ? sparse->cols : dense->cols(); }
};
TOPKNOT_FIELDS(LinearWeights, sparse, dense)

}  // namespace topknot
