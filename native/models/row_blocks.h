// The rows of a sparse matrix where the kernels of a device read them.
#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "core/csr.h"

namespace topknot {

/// Rows [first, first + count) of a tensor, in its memory.
Tensor rowsOf(const Tensor& t, int64_t first, int64_t count);

/// Memory of the arrays of `rows` rows with `nnz` entries.
constexpr int64_t csrBytes(int64_t rows, int64_t nnz) { return (rows + 1) * 8 + nnz * 8; }

/// Neighbouring rows of a matrix, on a device.
struct RowBlock {
  int64_t first;
  Csr rows;
};

/// A matrix on a device. Where it has more than `mostBytes` it stays on the host, and blocks of its rows are copied
/// each time that they are asked for, of at most so many bytes unless it is a single row. On the CPU it is the matrix
/// itself.
class RowBlocks {
 public:
  RowBlocks(const Csr& matrix, Device device, int64_t mostBytes = std::numeric_limits<int64_t>::max());

  /// Calls body(RowBlock) for all rows in order.
  template <typename F>
  void each(F&& body) const {
    if (whole_) return body(RowBlock{0, *whole_});
    for (size_t b = 0; b + 1 < borders_.size(); ++b) body(copyOfBlock(borders_[b], borders_[b + 1]));
  }

 private:
  RowBlock copyOfBlock(int64_t first, int64_t last) const;

  Csr matrix_;
  Device device_;
  std::optional<Csr> whole_;
  std::vector<int64_t> borders_;
};

}  // namespace topknot
