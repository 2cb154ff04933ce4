// The inverse of one large symmetric positive definite matrix, in place: for models whose matrix takes most of the
// memory. (Batches of small ones are another matter.)
#pragma once
#include <cstdint>
#include <functional>

#include "core/job.h"
#include "core/tensor.h"

namespace topknot {

/// Bytes that invertPositiveDefinite takes beside the matrix.
int64_t inverseScratchBytes(int64_t n, int64_t block = 512);

/// a [n, n], on any device, of which the lower triangle is read, becomes its inverse, whole and symmetric. Blocks of
/// `block` rows are swept one after the other, n³ operations in all, nearly all of them in matrix products; `done`
/// hears of each with the number of rows swept. Throws ERR_VALUE, "`what` is not positive definite ...", for a matrix
/// that is none.
void invertPositiveDefinite(Job& job, const Tensor& a, const char* what, const std::function<void(int64_t)>& done,
                            int64_t block = 512);

}  // namespace topknot
