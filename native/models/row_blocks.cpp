#include "models/row_blocks.h"

#include "backend/memory.h"

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

RowBlocks::RowBlocks(const Csr& matrix, Device device, int64_t mostBytes) : matrix_(matrix), device_(device) {
  if (device.kind == Device::cpu || csrBytes(matrix.rows(), matrix.nnz()) <= mostBytes) {
    whole_ =
        Csr{copyTo(matrix.indptr, device), copyTo(matrix.indices, device), copyTo(matrix.values, device), matrix.cols};
    return;
  }
  const int64_t* indptr = matrix.indptr.data<int64_t>();
  borders_ = {0};
  for (int64_t row = 1; row <= matrix.rows(); ++row) {
    const int64_t first = borders_.back();
    const bool fits = row < matrix.rows() && csrBytes(row + 1 - first, indptr[row + 1] - indptr[first]) <= mostBytes;
    if (!fits) borders_.push_back(row);
  }
}

RowBlock RowBlocks::copyOfBlock(int64_t first, int64_t last) const {
  const int64_t* indptr = matrix_.indptr.data<int64_t>();
  const int64_t begin = indptr[first], count = indptr[last] - begin;
  const Tensor starts = Tensor::host<int64_t>({last - first + 1});
  for (int64_t row = first; row <= last; ++row) starts.data<int64_t>()[row - first] = indptr[row] - begin;
  return {first,
          {copyTo(starts, device_), copyTo(rowsOf(matrix_.indices, begin, count), device_),
           copyTo(rowsOf(matrix_.values, begin, count), device_), matrix_.cols}};
}

}  // namespace topknot
