// Shapes that meet: dimensions are compared from the last one on, and one of 1, or a missing one, is repeated.
#pragma once
#include <span>
#include <vector>

#include "core/tensor.h"
#include "core/thread_pool.h"

namespace topknot {

struct Broadcast {
  std::vector<int64_t> dims;              // of the result
  std::vector<int64_t> aStride, bStride;  // in elements, of operands without gaps; 0: repeated

  /// Throws ERR_SHAPE, naming the two as `aName` and `bName`, when they do not fit.
  Broadcast(std::span<const int64_t> a, std::span<const int64_t> b, const char* aName, const char* bName);

  int64_t count() const;
  /// The same with as few dimensions as possible.
  Broadcast merged() const;
};

/// out = x [from] summed over what `to` repeats: the gradient of a repeated operand. `to` broadcasts to `from`.
void sumRepeated(const Exec& exec, Device device, const float* x, std::span<const int64_t> from,
                 std::span<const int64_t> to, float* out);

}  // namespace topknot
