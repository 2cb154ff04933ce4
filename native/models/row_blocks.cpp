#include "models/row_blocks.h"

#include <algorithm>

#include "backend/memory.h"
#include "backend/registry.h"

namespace topknot {

Tensor rowsOf(const Tensor& t, int64_t first, int64_t count) {
  std::vector<int64_t> dims(t.shape.dims().begin(), t.shape.dims().end());
  dims[0] = count;
  Tensor out{.dtype = t.dtype, .shape = Shape(dims)};
  const size_t skipped = t.rows() > 0 ? t.bytes() / static_cast<size_t>(t.rows()) * static_cast<size_t>(first) : 0;
  constexpr bool counted = true;  // with the buffer that owns the memory
  out.buffer = std::make_shared<Buffer>(t.data<char>() + skipped, out.bytes(), t.device(), t.buffer, counted);
  return out;
}

int64_t roomForRows(const Csr& a, int64_t others, Device device, int64_t deviceBytes) {
  constexpr int64_t all = std::numeric_limits<int64_t>::max();
  if (device.kind == Device::cpu) return all;
  const int64_t room = (deviceBytes > 0 ? deviceBytes : freeBytes(device)) - others;
  // As much again is for what the kernels need in between; a block is copied before the one before it is given back.
  const int64_t both = csrBytes(a.rows(), a.nnz()) + csrBytes(a.cols, a.nnz());
  const int64_t least = deviceBytes > 0 ? 1 : int64_t{64} << 20;
  return both <= room / 2 ? all : std::max(room / 8, least);
}

RowBlocks::RowBlocks(const Csr& matrix, Device device, int64_t mostBytes, const Tensor& bytes)
    : matrix_(matrix),
      device_(device),
      bytes_(bytes),
      bytesOfEntry_(matrix.nnz() > 0 ? bytes.count() / matrix.nnz() : 0) {
  const auto needed = [&](int64_t rows, int64_t nnz) { return csrBytes(rows, nnz) + nnz * bytesOfEntry_; };
  if (device.kind == Device::cpu || needed(matrix.rows(), matrix.nnz()) <= mostBytes) {
    whole_ = RowBlock{
        0,
        {copyTo(matrix.indptr, device), copyTo(matrix.indices, device), copyTo(matrix.values, device), matrix.cols},
        copyTo(bytes, device)};
    return;
  }
  const int64_t* indptr = matrix.indptr.data<int64_t>();
  borders_ = {0};
  for (int64_t row = 1; row <= matrix.rows(); ++row) {
    const int64_t first = borders_.back();
    const bool fits = row < matrix.rows() && needed(row + 1 - first, indptr[row + 1] - indptr[first]) <= mostBytes;
    if (!fits) borders_.push_back(row);
  }
}

BlockParts RowBlocks::partsOf(int64_t b) const {
  const int64_t first = borders_[b], last = borders_[b + 1];
  const int64_t* indptr = matrix_.indptr.data<int64_t>();
  const int64_t begin = indptr[first], count = indptr[last] - begin;
  const Tensor starts = Tensor::host<int64_t>({last - first + 1});
  for (int64_t row = first; row <= last; ++row) starts.data<int64_t>()[row - first] = indptr[row] - begin;
  return {starts, rowsOf(matrix_.indices, begin, count), rowsOf(matrix_.values, begin, count),
          bytesOfEntry_ > 0 ? rowsOf(bytes_, begin * bytesOfEntry_, count * bytesOfEntry_) : bytes_};
}

}  // namespace topknot
