// What the approximate index is given: a function that compares two vectors.
#pragma once
#include <cstdint>

#include "backend/topk_args.h"

namespace topknot {

/// How far apart two vectors are, the smaller the better: minus the inner product, or the squared distance. Vectors are
/// padded with zeros to a multiple of vectorStep numbers.
using VectorDistance = float (*)(const float* a, const float* b, int64_t padded);
inline constexpr int64_t vectorStep = 16;

/// Picks the function once, so that a search in a graph pays no more than a call for each pair.
struct VectorDistanceArgs {
  Metric metric;  // cosine is the inner product of vectors of length 1
  VectorDistance* out;
};

}  // namespace topknot
