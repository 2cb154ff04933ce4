// Why a score is what it is.
#pragma once
#include "core/fields.h"
#include "core/tensor.h"

namespace topknot {

/// A score as a sum: what it is without the history, and what each entry of the history adds.
struct Explained {
  Tensor contributions;  // float32, one for each entry
  double baseline = 0;
};
TOPKNOT_FIELDS(Explained, contributions, baseline)

}  // namespace topknot
