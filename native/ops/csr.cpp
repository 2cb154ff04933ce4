// Sparse matrices: built from triplets, transposed, checked. Counting sort by row, then a sort of every row by
// (column, input order), so the result never depends on threads.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/counting_sort.h"
#include "ops/duplicates.h"
#include "ops/ops.h"

namespace topknot {
namespace {

constexpr int64_t rowGrain = 512;

Csr allocate(int64_t rows, int64_t cols, int64_t nnz) {
  return {Tensor::host<int64_t>({rows + 1}), Tensor::host<int32_t>({nnz}), Tensor::host<float>({nnz}), cols};
}

void checkRange(std::span<const int32_t> ids, int64_t limit, const char* name) {
  for (size_t i = 0; i < ids.size(); ++i) {
    require(ids[i] >= 0 && ids[i] < limit, ErrorCode::range, name, ": expected ids in 0 to ", limit - 1, " but entry ",
            i, " is ", ids[i]);
  }
}

Csr transposed(const Csr& m, const Exec& exec) {
  Csr out = allocate(m.cols, m.rows(), m.nnz());
  const CsrView v = m.view();
  const Tensor rowOf = Tensor::host<int32_t>({m.nnz()});
  parallelFor(v.rows, rowGrain, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      std::fill(rowOf.data<int32_t>() + v.indptr[r], rowOf.data<int32_t>() + v.indptr[r + 1], static_cast<int32_t>(r));
    }
  });
  countingSort(m.indices.span<int32_t>(), m.cols, out.indptr.data<int64_t>(), exec, [&](int64_t i, int64_t at) {
    out.indices.data<int32_t>()[at] = rowOf.data<int32_t>()[i];
    out.values.data<float>()[at] = v.values[i];
  });
  return out;
}

/// Sorts one row by column; equal columns keep their order.
void sortRow(int32_t* indices, float* values, int64_t n, std::vector<uint64_t>& keys, std::vector<float>& copy) {
  if (std::is_sorted(indices, indices + n)) return;
  keys.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) keys[i] = static_cast<uint64_t>(indices[i]) << 32 | static_cast<uint64_t>(i);
  std::sort(keys.begin(), keys.end());
  copy.assign(values, values + n);
  for (int64_t i = 0; i < n; ++i) {
    indices[i] = static_cast<int32_t>(keys[i] >> 32);
    values[i] = copy[keys[i] & UINT32_MAX];
  }
}

/// Sorts every row and, unless they are to be refused, merges runs of equal columns at its front; `counts` [rows]
/// receives what is left of each.
void sortAndMerge(const Csr& m, Duplicates duplicates, int64_t* counts, const Exec& exec) {
  struct Scratch {
    std::vector<uint64_t> keys;
    std::vector<float> values;
  };
  std::vector<Scratch> scratch(maxThreads);
  parallelFor(m.rows(), rowGrain, exec, [&](int64_t begin, int64_t end, int slot) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t first = m.indptr.data<int64_t>()[r], n = m.indptr.data<int64_t>()[r + 1] - first;
      int32_t* indices = m.indices.data<int32_t>() + first;
      float* values = m.values.data<float>() + first;
      sortRow(indices, values, n, scratch[slot].keys, scratch[slot].values);
      int64_t out = 0;
      for (int64_t i = 0; i < n; ++i) {
        if (duplicates != Duplicates::refuse && out > 0 && indices[out - 1] == indices[i]) {
          values[out - 1] = merged(values[out - 1], values[i], duplicates);
        } else {
          indices[out] = indices[i];
          values[out++] = values[i];
        }
      }
      counts[r] = out;
    }
  });
}

/// The first counts[r] entries of every row, without the gaps.
Csr compacted(const Csr& m, const int64_t* counts, const Exec& exec) {
  int64_t nnz = 0;
  for (int64_t r = 0; r < m.rows(); ++r) nnz += counts[r];
  if (nnz == m.nnz()) return m;
  Csr out = allocate(m.rows(), m.cols, nnz);
  int64_t* ptr = out.indptr.data<int64_t>();
  ptr[0] = 0;
  for (int64_t r = 0; r < m.rows(); ++r) ptr[r + 1] = ptr[r] + counts[r];
  parallelFor(m.rows(), rowGrain, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t from = m.indptr.data<int64_t>()[r];
      std::copy_n(m.indices.data<int32_t>() + from, counts[r], out.indices.data<int32_t>() + ptr[r]);
      std::copy_n(m.values.data<float>() + from, counts[r], out.values.data<float>() + ptr[r]);
    }
  });
  return out;
}

/// Names the first cell that has two entries; rows must be sorted, not merged.
void refuseDuplicates(const Csr& m) {
  const CsrView v = m.view();
  for (int64_t r = 0; r < v.rows; ++r) {
    const int32_t* end = v.indices + v.indptr[r + 1];
    const int32_t* twin = std::adjacent_find(v.indices + v.indptr[r], end);
    require(twin == end, ErrorCode::value, "duplicates: row ", r, " has column ", twin == end ? 0 : *twin,
            " twice; pass duplicates 'sum', 'first', 'last' or 'max' to merge them");
  }
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
  const Exec& exec = job.exec();
  Csr byRow = allocate(rowCount, colCount, rows.count());
  countingSort(rows.span<int32_t>(), rowCount, byRow.indptr.data<int64_t>(), exec, [&](int64_t i, int64_t at) {
    byRow.indices.data<int32_t>()[at] = cols.data<int32_t>()[i];
    byRow.values.data<float>()[at] = values ? values->data<float>()[i] : 1.0f;
  });
  job.checkCancelled();
  const Tensor counts = Tensor::host<int64_t>({rowCount});
  sortAndMerge(byRow, duplicates, counts.data<int64_t>(), exec);
  job.checkCancelled();
  if (duplicates == Duplicates::refuse) refuseDuplicates(byRow);
  Csr merged = compacted(byRow, counts.data<int64_t>(), exec);
  job.checkCancelled();
  return merged;
}

Csr csrTranspose(Job& job, Csr matrix) {
  expectCsr(matrix, "matrix");
  Csr out = transposed(matrix, job.exec());
  job.checkCancelled();
  return out;
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
