// The rows of a sparse matrix where the kernels of a device read them.
#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "backend/block_stream.h"
#include "core/csr.h"

namespace topknot {

/// Rows [first, first + count) of a tensor, in its memory.
Tensor rowsOf(const Tensor& t, int64_t first, int64_t count);

/// Memory of the arrays of `rows` rows with `nnz` entries.
constexpr int64_t csrBytes(int64_t rows, int64_t nnz) { return (rows + 1) * 8 + nnz * 8; }

/// How many bytes of a matrix may lie on the device at a time where two, `a` and its transpose, are needed in turn
/// beside `others` bytes of other data. deviceBytes: what all of it may take; 0: what is free.
int64_t roomForRows(const Csr& a, int64_t others, Device device, int64_t deviceBytes);

/// Neighbouring rows of a matrix, on a device.
struct RowBlock {
  int64_t first;
  Csr rows;
  Tensor bytes;  // those of their entries, where the matrix comes with some
};

/// A matrix on a device. Where it has more than `mostBytes` it stays on the host, and blocks of its rows are copied
/// each time that they are asked for, of at most so many bytes unless it is a single row. On the CPU it is the matrix
/// itself.
class RowBlocks {
 public:
  /// bytes: uint8 with as many elements for each entry of the matrix; none: []
  RowBlocks(const Csr& matrix, Device device, int64_t mostBytes = std::numeric_limits<int64_t>::max(),
            const Tensor& bytes = Tensor::host<uint8_t>({0}));

  /// Calls body(RowBlock) for all rows in order.
  template <typename F>
  void each(F&& body) const {
    if (whole_) return body(*whole_);
    streamBlocks(
        device_, static_cast<int64_t>(borders_.size()) - 1, [this](int64_t b) { return partsOf(b); },
        [&](int64_t b, const BlockParts& parts) {
          body(RowBlock{borders_[b], {parts[0], parts[1], parts[2], matrix_.cols}, parts[3]});
        });
  }

 private:
  BlockParts partsOf(int64_t b) const;

  Csr matrix_;
  Device device_;
  Tensor bytes_;
  int64_t bytesOfEntry_;
  std::optional<RowBlock> whole_;
  std::vector<int64_t> borders_;
};

}  // namespace topknot
