// Two entries of one cell become one.
#pragma once
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "ops/types.h"

namespace topknot {

/// The value of a cell that had `kept` and gets `next`, both finite. Throws ERR_VALUE for a sum beyond float32.
inline float merged(float kept, float next, Duplicates duplicates) {
  switch (duplicates) {
    case Duplicates::sum: {
      const float sum = kept + next;
      require(std::isfinite(sum), ErrorCode::value, "values: ", kept, " and ", next,
              ", of one cell, sum beyond float32");
      return sum;
    }
    case Duplicates::last:
      return next;
    case Duplicates::max:
      return std::max(kept, next);
    default:
      return kept;
  }
}

}  // namespace topknot
