// One half-sweep of implicit ALS block by block of the coordinates, for many factors: Rendle, Krichene, Zhang, Koren,
// "iALS++: Speeding up matrix factorization with subspace optimization", 2021.
#pragma once
#include <cstdint>

#include "core/csr.h"
#include "core/job.h"
#include "core/tensor.h"

namespace topknot {

/// For each block of `blockSize` coordinates in turn: moves every row of `out` to the least of the objective along that
/// block, everything else fixed. A row with n entries costs about n f (blockSize + 6) + 2 f² operations instead of
/// n f² + f³ / 3. All lie on the device of `fixed`. `gram` is already scaled by the unobserved weight; rows without
/// entries become zero.
void solveSubspaces(Job& job, const Csr& rows, const float* reg, const Tensor& fixed, const Tensor& gram, float bonus,
                    int64_t blockSize, const Tensor& out);

}  // namespace topknot
