// Dense algebra on matrices [rows, cols], or on batches of them [batch, rows, cols].
#pragma once
#include "backend/linalg_args.h"
#include "core/fields.h"
#include "core/tensor.h"

namespace topknot {

/// What is done about matrices that fail.
struct LinalgOptions {
  bool strict = false;     // results are poisoned with ERR_VALUE, which names the first of them; status is not
  bool overwrite = false;  // the result may take the memory of the tensor that is overwritten
};
TOPKNOT_FIELDS(LinalgOptions, strict, overwrite)

/// status: int32 [batch], or a single number; see LinalgStatus.
struct Factor {
  Tensor factor, status;
};
TOPKNOT_FIELDS(Factor, factor, status)

struct Solution {
  Tensor x, status;
};
TOPKNOT_FIELDS(Solution, x, status)

struct QrFactors {
  Tensor q, r, status;
};
TOPKNOT_FIELDS(QrFactors, q, r, status)

struct EigenPairs {
  Tensor values, vectors, status;
};
TOPKNOT_FIELDS(EigenPairs, values, vectors, status)

struct SingularTriples {
  Tensor u, s, vt, status;
};
TOPKNOT_FIELDS(SingularTriples, u, s, vt, status)

}  // namespace topknot
