// What the search for neighbours is given.
#pragma once
#include <cstdint>

#include "backend/views.h"

namespace topknot {

/// For each row r of a: the k rows c of bᵀ of the highest similarity
///   s_rc = a_r · b_c / (aNorms_r bNorms_c + shrinkage),
/// of those above 0; best first, equal ones by rising c; where there are fewer, id -1.
struct NeighboursArgs {
  CsrView a;            // [m, n]
  CsrView b;            // [n, cols]: column c is one candidate
  const float* aNorms;  // [m]
  const float* bNorms;  // [cols]
  float shrinkage;
  int64_t self;  // row r of a is column self + r of b, and no neighbour of itself; below 0: it is none of them
  int64_t k;
  int32_t* ids;   // [m, k]
  float* scores;  // [m, k]
};

}  // namespace topknot
