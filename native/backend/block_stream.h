// Blocks of host memory, or of a mapped file, that go through a device's memory one after the other: while the kernels
// of one run, another thread copies the next one, on the device's second stream.
#pragma once
#include <functional>
#include <vector>

#include "core/tensor.h"

namespace topknot {

/// Tensors that belong to one block.
using BlockParts = std::vector<Tensor>;

/// Calls body(b, parts) for each of the blocks in order, `parts` being copies on the device of what partsOf(b) gives.
/// They are the body's until it returns; it may issue work without waiting for it. Two blocks are there at a time.
void streamBlocks(Device device, int64_t blocks, const std::function<BlockParts(int64_t)>& partsOf,
                  const std::function<void(int64_t, const BlockParts&)>& body);

}  // namespace topknot
