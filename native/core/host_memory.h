// Memory of the host for tensors and scratch. What is freed is kept for the next block of its size: fresh pages cost a
// fault each, in a virtual machine more time than many a kernel takes to fill them.
#pragma once
#include <cstddef>
#include <memory>

namespace topknot {

/// Aligned to 64 bytes, from 4 MB on to huge pages. A spare vector behind the end lets kernels load whole vectors at a
/// tail. What it holds is not defined. Throws ERR_MEMORY.
std::shared_ptr<void> hostMemory(size_t bytes);

/// Of freed blocks.
size_t keptHostBytes();
/// Gives them back to the system.
void trimHostMemory() noexcept;

}  // namespace topknot
