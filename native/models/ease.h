// EASE: the linear model of items from items in closed form. Steck, "Embarrassingly shallow autoencoders for sparse
// data", WWW 2019:
//   min |X - X B|² + λ |B|²  with a diagonal of zeros:  B = I - P diag(P)⁻¹,  P = (XᵀX + λ I)⁻¹
#pragma once
#include <cstdint>
#include <string>

#include "core/csr.h"
#include "core/fields.h"
#include "core/job.h"
#include "ops/linear.h"

namespace topknot {

struct EaseOptions {
  double regularization = 500;  // λ
  int64_t neighbours = 0;       // weights kept of each item, the largest by magnitude; 0: all
  std::string device = "cpu";   // where the inverse and the products are computed
};
TOPKNOT_FIELDS(EaseOptions, regularization, neighbours, device)

namespace ops {

/// B [items, items], dense unless it is cut down to neighbours. Throws ERR_MEMORY before it starts where 4 items²
/// bytes, and a little more, are not there.
LinearWeights easeFit(Job& job, Csr users, EaseOptions options);

}  // namespace ops
}  // namespace topknot
