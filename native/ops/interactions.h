// What the operations on cleaned interactions share.
#pragma once
#include <vector>

#include "core/tensor.h"
#include "ops/types.h"

namespace topknot {

/// Where each user's interactions begin: [userCount + 1]. Throws unless `users` holds rising rows below userCount.
std::vector<int64_t> userStarts(const Tensor& users, int64_t userCount);

/// Throws unless the columns have their dtypes and one length.
void expectTriplets(const Triplets& data);

}  // namespace topknot
