// Compressed sparse rows: indptr int64 [rows + 1], indices int32 [nnz] rising within a row, values float32 [nnz].
#pragma once
#include <cstdint>

#include "backend/views.h"
#include "core/tensor.h"

namespace topknot {

struct Csr {
  Tensor indptr, indices, values;
  int64_t cols = 0;

  int64_t rows() const { return indptr.rows() - 1; }
  int64_t nnz() const { return indices.rows(); }
  CsrView view() const { return {indptr.data<int64_t>(), indices.data<int32_t>(), values.data<float>(), rows(), cols}; }
};

/// Throws unless the parts have the dtypes and lengths of a CSR matrix; cheap: of the contents it looks at the
/// last of indptr, and on a GPU at nothing.
void expectCsr(const Csr& m, const char* name);

}  // namespace topknot
