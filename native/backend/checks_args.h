// What the kernels that check arguments are given.
#pragma once
#include <cstdint>

#include "backend/views.h"

namespace topknot {

/// Where the first NaN or infinite number is.
struct FirstNotFiniteArgs {
  const void* x;  // [count]
  FloatType type;
  int64_t count;
  int64_t* first;  // its place; `count` where there is none
};

}  // namespace topknot
