// What the products of a sparse matrix are given.
#pragma once
#include <cstdint>

#include "backend/views.h"

namespace topknot {

/// out[q] = a[rows[q]] · b for `count` rows of a; b and out are dense, their rows ldb and ldo floats apart.
struct SpmmArgs {
  CsrView a;            // [m, n]
  const int32_t* rows;  // [count]; null: row q is q
  int64_t count;
  const float* b;  // [n, cols]
  int64_t ldb, cols;
  float* out;  // [count, cols]
  int64_t ldo;
};

/// out[q] = a[rows[q]] · b, b sparse and out dense.
struct SpgemmArgs {
  CsrView a;            // [m, n]
  const int32_t* rows;  // [count]; null: row q is q
  int64_t count;
  CsrView b;   // [n, cols]
  float* out;  // [count, b.cols]
};

}  // namespace topknot
