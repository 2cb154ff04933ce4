// Sparse matrices: built from triplets, transposed, checked. All by counting sort, in the order of the input, so the
// result never depends on threads.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/ops.h"

namespace topknot {
namespace {

Csr allocate(int64_t rows, int64_t cols, int64_t nnz) {
  return {Tensor::host<int64_t>({rows + 1}, true), Tensor::host<int32_t>({nnz}), Tensor::host<float>({nnz}), cols};
}

void checkRange(std::span<const int32_t> ids, int64_t limit, const char* name) {
  for (size_t i = 0; i < ids.size(); ++i) {
    require(ids[i] >= 0 && ids[i] < limit, ErrorCode::range, name, ": expected ids in 0 to ", limit - 1, " but entry ",
            i, " is ", ids[i]);
  }
}

/// Moves entries into the rows that `rows` names, keeping their order within a row.
void scatter(std::span<const int32_t> rows, std::span<const int32_t> cols, const float* values, Csr& out) {
  int64_t* ptr = out.indptr.data<int64_t>();
  for (int32_t r : rows) ++ptr[r + 1];
  for (int64_t r = 0; r < out.rows(); ++r) ptr[r + 1] += ptr[r];
  Tensor next = Tensor::host<int64_t>({out.rows()});
  std::copy_n(ptr, out.rows(), next.data<int64_t>());
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t at = next.data<int64_t>()[rows[i]]++;
    out.indices.data<int32_t>()[at] = cols[i];
    out.values.data<float>()[at] = values ? values[i] : 1.0f;
  }
}

Csr transposed(const Csr& m) {
  Csr out = allocate(m.cols, m.rows(), m.nnz());
  int64_t* ptr = out.indptr.data<int64_t>();
  for (int32_t c : m.indices.span<int32_t>()) ++ptr[c + 1];
  for (int64_t c = 0; c < m.cols; ++c) ptr[c + 1] += ptr[c];
  Tensor next = Tensor::host<int64_t>({m.cols});
  std::copy_n(ptr, m.cols, next.data<int64_t>());
  const CsrView v = m.view();
  for (int64_t r = 0; r < v.rows; ++r) {
    for (int64_t i = v.indptr[r]; i < v.indptr[r + 1]; ++i) {
      const int64_t at = next.data<int64_t>()[v.indices[i]]++;
      out.indices.data<int32_t>()[at] = static_cast<int32_t>(r);
      out.values.data<float>()[at] = v.values[i];
    }
  }
  return out;
}

/// Merges runs of equal columns in place; rows must be sorted.
Csr merged(const Csr& m, Duplicates duplicates) {
  const CsrView v = m.view();
  int32_t* indices = m.indices.data<int32_t>();
  float* values = m.values.data<float>();
  Tensor newPtr = Tensor::host<int64_t>({v.rows + 1});
  int64_t out = 0;
  for (int64_t r = 0; r < v.rows; ++r) {
    newPtr.data<int64_t>()[r] = out;
    for (int64_t i = v.indptr[r]; i < v.indptr[r + 1]; ++i) {
      if (i > v.indptr[r] && out > newPtr.data<int64_t>()[r] && indices[out - 1] == v.indices[i]) {
        require(duplicates != Duplicates::refuse, ErrorCode::value, "duplicates: row ", r, " has column ", v.indices[i],
                " twice; pass duplicates 'sum', 'last' or 'max' to merge them");
        float& kept = values[out - 1];
        kept = duplicates == Duplicates::sum    ? kept + v.values[i]
               : duplicates == Duplicates::last ? v.values[i]
                                                : std::max(kept, v.values[i]);
      } else {
        indices[out] = v.indices[i];
        values[out] = v.values[i];
        ++out;
      }
    }
  }
  newPtr.data<int64_t>()[v.rows] = out;
  if (out == m.nnz()) return m;
  Csr exact{newPtr, Tensor::host<int32_t>({out}), Tensor::host<float>({out}), m.cols};
  std::copy_n(indices, out, exact.indices.data<int32_t>());
  std::copy_n(values, out, exact.values.data<float>());
  return exact;
}

}  // namespace

namespace ops {

Csr csrFromCoo(Job& job, Tensor rows, Tensor cols, std::optional<Tensor> values, int64_t rowCount, int64_t colCount,
               Duplicates duplicates) {
  expect(rows, "rows", DType::int32, 1);
  expect(cols, "cols", DType::int32, 1);
  require(rowCount >= 0 && rowCount <= INT32_MAX && colCount >= 0 && colCount <= INT32_MAX, ErrorCode::range,
          "shape: expected at most 2147483647 rows and columns but received [", rowCount, ", ", colCount, "]");
  require(rows.count() == cols.count(), ErrorCode::shape, "cols: expected ", rows.count(),
          " ids, as many as rows, but received ", cols.count());
  if (values) {
    expect(*values, "values", DType::float32, 1);
    require(values->count() == rows.count(), ErrorCode::shape, "values: expected ", rows.count(),
            " values, as many as rows, but received ", values->count());
    for (int64_t i = 0; i < values->count(); ++i) {
      require(std::isfinite(values->data<float>()[i]), ErrorCode::value, "values: expected finite numbers but entry ",
              i, " is ", values->data<float>()[i]);
    }
  }
  checkRange(rows.span<int32_t>(), rowCount, "rows");
  checkRange(cols.span<int32_t>(), colCount, "cols");
  job.checkCancelled();
  Csr byRow = allocate(rowCount, colCount, rows.count());
  scatter(rows.span<int32_t>(), cols.span<int32_t>(), values ? values->data<float>() : nullptr, byRow);
  job.checkCancelled();
  // Two stable transpositions sort the columns of every row and keep equal ones in input order.
  Csr sorted = transposed(transposed(byRow));
  job.checkCancelled();
  return merged(sorted, duplicates);
}

Csr csrTranspose(Job&, Csr matrix) {
  expectCsr(matrix, "matrix");
  return transposed(matrix);
}

void csrValidate(Job&, Csr matrix) {
  expectCsr(matrix, "matrix");
  const CsrView v = matrix.view();
  require(v.indptr[0] == 0, ErrorCode::value, "indptr: expected to start at 0 but received ", v.indptr[0]);
  for (int64_t r = 0; r < v.rows; ++r) {
    require(v.indptr[r] <= v.indptr[r + 1] && v.indptr[r + 1] <= matrix.nnz(), ErrorCode::value,
            "indptr: expected rising values up to ", matrix.nnz(), " but row ", r, " goes from ", v.indptr[r], " to ",
            v.indptr[r + 1]);
    for (int64_t i = v.indptr[r]; i < v.indptr[r + 1]; ++i) {
      require(v.indices[i] >= 0 && v.indices[i] < v.cols, ErrorCode::range, "indices: expected ids in 0 to ",
              v.cols - 1, " but row ", r, " has ", v.indices[i]);
      require(i == v.indptr[r] || v.indices[i - 1] < v.indices[i], ErrorCode::value,
              "indices: expected rising ids within a row but row ", r, " has ", i == v.indptr[r] ? 0 : v.indices[i - 1],
              " before ", v.indices[i]);
      require(std::isfinite(v.values[i]), ErrorCode::value, "values: expected finite numbers but row ", r, " has ",
              v.values[i]);
    }
  }
}

}  // namespace ops
}  // namespace topknot
