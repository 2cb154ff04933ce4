// Moving rows: out of matrices, into matrices, and between sparse matrices. Nothing here computes.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/duplicates.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

constexpr int64_t grain = 4096;

void expectRowIds(const Tensor& ids, int64_t rows, const char* name) {
  expect(ids, name, DType::int32, 1);
  for (int32_t id : ids.span<int32_t>()) {
    require(id >= 0 && id < rows, ErrorCode::range, name, ": expected rows in 0 to ", rows - 1, " but received ", id);
  }
}

/// Entries of `update` under the row and column numbers of the result.
Csr renumbered(Job& job, const Csr& update, const Tensor& rowOf, const Tensor& colOf, int64_t rows, int64_t cols,
               Duplicates duplicates) {
  const CsrView u = update.view();
  Tensor r = Tensor::host<int32_t>({update.nnz()}), c = Tensor::host<int32_t>({update.nnz()});
  for (int64_t row = 0; row < u.rows; ++row) {
    for (int64_t i = u.indptr[row]; i < u.indptr[row + 1]; ++i) {
      r.data<int32_t>()[i] = rowOf.data<int32_t>()[row];
      c.data<int32_t>()[i] = colOf.data<int32_t>()[u.indices[i]];
    }
  }
  return ops::csrFromCoo(job, r, c, update.values, rows, cols, duplicates);
}

}  // namespace

namespace ops {

Tensor takeRows(Job& job, Tensor matrix, Tensor rows) {
  expect(matrix, "matrix", DType::float32, 2);
  expectOnHost(rows, "rows");
  expectRowIds(rows, matrix.rows(), "rows");
  const Device device = matrix.device();
  const Tensor ids = copyTo(rows, device), out = empty<float>(device, {rows.count(), matrix.cols()});
  const TableView table{matrix.data<float>(), matrix.rows(), matrix.cols(), RowFormat::float32};
  run(device, &Backend::gather, "gather", job.exec(),
      GatherArgs{table, ids.data<int32_t>(), rows.count(), out.data<float>()});
  job.checkCancelled();
  return out;
}

Tensor takeColumns(Job& job, Tensor matrix, int64_t begin, int64_t count) {
  expect(matrix, "matrix", DType::float32, 2);
  require(begin >= 0 && count >= 0 && begin + count <= matrix.cols(), ErrorCode::range,
          "begin, count: expected columns in 0 to ", matrix.cols(), " but received ", count, " from ", begin);
  Tensor out = Tensor::host<float>({matrix.rows(), count});
  parallelFor(matrix.rows(), grain, job.exec(), [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r)
      std::copy_n(matrix.data<float>() + r * matrix.cols() + begin, count, out.data<float>() + r * count);
  });
  return out;
}

Tensor replaceRows(Job&, Tensor matrix, int64_t rowCount, Tensor rows, Tensor values) {
  expect(matrix, "matrix", DType::float32, 2);
  expect(values, "values", DType::float32, 2);
  expectRowIds(rows, rowCount, "rows");
  const int64_t cols = matrix.cols();
  require(rowCount >= matrix.rows(), ErrorCode::range, "rowCount: expected at least the ", matrix.rows(),
          " rows of the matrix but received ", rowCount);
  require(values.rows() == rows.count() && values.cols() == cols, ErrorCode::shape, "values: expected shape [",
          rows.count(), ", ", cols, "] but received ", text(values.shape));
  Tensor out = Tensor::host<float>({rowCount, cols}, true);
  std::copy_n(matrix.data<float>(), matrix.count(), out.data<float>());
  for (int64_t i = 0; i < rows.count(); ++i)
    std::copy_n(values.data<float>() + i * cols, cols, out.data<float>() + rows.data<int32_t>()[i] * cols);
  return out;
}

Tensor growRows(Job&, Tensor matrix, int64_t rowCount, Tensor fresh) {
  expect(matrix, "matrix", DType::float32, 2);
  const int64_t cols = matrix.cols();
  require(rowCount >= matrix.rows(), ErrorCode::range, "rowCount: expected at least the ", matrix.rows(),
          " rows of the matrix but received ", rowCount);
  expect(fresh, "fresh", DType::float32, 1);
  require(fresh.count() == cols, ErrorCode::shape, "fresh: expected ", cols, " values but received ", fresh.count());
  const Tensor out = Tensor::host<float>({rowCount, cols});
  float* row = std::copy_n(matrix.data<float>(), matrix.count(), out.data<float>());
  for (int64_t i = matrix.rows(); i < rowCount; ++i) row = std::copy_n(fresh.data<float>(), cols, row);
  return out;
}

Tensor appendColumns(Job& job, Tensor matrix, std::vector<Tensor> columns) {
  expect(matrix, "matrix", DType::float32, 2);
  const int64_t rows = matrix.rows(), cols = matrix.cols(), more = static_cast<int64_t>(columns.size());
  for (const Tensor& column : columns) {
    expect(column, "columns", DType::float32, 1);
    require(column.count() == rows, ErrorCode::shape, "columns: expected ", rows, " values each but received ",
            column.count());
  }
  const Tensor out = Tensor::host<float>({rows, cols + more});
  parallelFor(rows, grain, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = std::copy_n(matrix.data<float>() + i * cols, cols, out.data<float>() + i * (cols + more));
      for (const Tensor& column : columns) *row++ = column.data<float>()[i];
    }
  });
  job.checkCancelled();
  return out;
}

Csr csrTakeRows(Job&, Csr matrix, Tensor rows) {
  expectCsr(matrix, "matrix");
  expectRowIds(rows, matrix.rows(), "rows");
  const CsrView m = matrix.view();
  Csr out{Tensor::host<int64_t>({rows.count() + 1}, true), {}, {}, matrix.cols};
  int64_t* ptr = out.indptr.data<int64_t>();
  for (int64_t i = 0; i < rows.count(); ++i) {
    const int32_t row = rows.data<int32_t>()[i];
    ptr[i + 1] = ptr[i] + m.indptr[row + 1] - m.indptr[row];
  }
  out.indices = Tensor::host<int32_t>({ptr[rows.count()]});
  out.values = Tensor::host<float>({ptr[rows.count()]});
  for (int64_t i = 0; i < rows.count(); ++i) {
    const int64_t from = m.indptr[rows.data<int32_t>()[i]], count = ptr[i + 1] - ptr[i];
    std::copy_n(m.indices + from, count, out.indices.data<int32_t>() + ptr[i]);
    std::copy_n(m.values + from, count, out.values.data<float>() + ptr[i]);
  }
  return out;
}

Tensor csrColumnSums(Job&, Csr matrix, bool weighted) {
  expectCsr(matrix, "matrix");
  const CsrView m = matrix.view();
  std::vector<double> sums(static_cast<size_t>(m.cols));
  for (int64_t i = 0; i < matrix.nnz(); ++i) sums[m.indices[i]] += weighted ? m.values[i] : 1.0;
  Tensor out = Tensor::host<float>({m.cols});
  std::copy(sums.begin(), sums.end(), out.data<float>());
  return out;
}

InteractionStats interactionStats(Job&, Csr matrix) {
  expectCsr(matrix, "matrix");
  const CsrView m = matrix.view();
  std::vector<int32_t> rows, cols;
  std::vector<bool> used(static_cast<size_t>(m.cols));
  float least = matrix.nnz() ? m.values[0] : 0;
  for (int64_t i = 0; i < matrix.nnz(); ++i) {
    used[m.indices[i]] = true;
    least = std::min(least, m.values[i]);
  }
  for (int64_t r = 0; r < m.rows; ++r) {
    if (m.indptr[r] == m.indptr[r + 1]) rows.push_back(static_cast<int32_t>(r));
  }
  for (int64_t c = 0; c < m.cols; ++c) {
    if (!used[c]) cols.push_back(static_cast<int32_t>(c));
  }
  const auto array = [](const std::vector<int32_t>& ids) {
    Tensor t = Tensor::host<int32_t>({static_cast<int64_t>(ids.size())});
    std::copy(ids.begin(), ids.end(), t.data<int32_t>());
    return TypedArray{t};
  };
  return {least, array(rows), array(cols)};
}

Csr csrUpdate(Job& job, Csr matrix, Csr update, Tensor rowOf, Tensor colOf, int64_t rowCount, int64_t colCount,
              Duplicates duplicates) {
  expectCsr(matrix, "matrix");
  expectCsr(update, "update");
  require(rowCount >= matrix.rows() && colCount >= matrix.cols, ErrorCode::range,
          "rowCount: a matrix can only grow, but received [", rowCount, ", ", colCount, "]");
  require(rowOf.count() == update.rows() && colOf.count() == update.cols, ErrorCode::shape,
          "rowOf: expected one row for each row and one column for each column of update");
  expectRowIds(rowOf, rowCount, "rowOf");
  expectRowIds(colOf, colCount, "colOf");
  const Csr added = renumbered(job, update, rowOf, colOf, rowCount, colCount, duplicates);
  job.checkCancelled();

  const CsrView a = matrix.view(), b = added.view();
  Tensor indptr = Tensor::host<int64_t>({rowCount + 1}, true);
  Tensor indices = Tensor::host<int32_t>({matrix.nnz() + added.nnz()});
  Tensor values = Tensor::host<float>({matrix.nnz() + added.nnz()});
  int64_t at = 0;
  const auto put = [&](int32_t index, float value) {
    indices.data<int32_t>()[at] = index;
    values.data<float>()[at++] = value;
  };
  for (int64_t r = 0; r < rowCount; ++r) {
    int64_t i = r < a.rows ? a.indptr[r] : 0, j = b.indptr[r];
    const int64_t iEnd = r < a.rows ? a.indptr[r + 1] : 0, jEnd = b.indptr[r + 1];
    while (i < iEnd || j < jEnd) {
      if (j == jEnd || (i < iEnd && a.indices[i] < b.indices[j])) {
        put(a.indices[i], a.values[i]), ++i;
      } else if (i == iEnd || b.indices[j] < a.indices[i]) {
        put(b.indices[j], b.values[j]), ++j;
      } else {
        require(duplicates != Duplicates::refuse, ErrorCode::value, "duplicates: row ", r, " already has column ",
                a.indices[i], "; pass 'sum', 'last' or 'max' to merge them");
        put(a.indices[i], merged(a.values[i], b.values[j], duplicates)), ++i, ++j;
      }
    }
    indptr.data<int64_t>()[r + 1] = at;
  }
  indices.shape = Shape{at};  // shared cells were counted twice; the spare room at the end is never read
  values.shape = Shape{at};
  return {indptr, indices, values, colCount};
}

}  // namespace ops
}  // namespace topknot
