#include "models/factors.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace topknot {

void checkNumber(double value, double least, const char* name) {
  require(std::isfinite(value) && value >= least && value <= 1e30, ErrorCode::range, name,
          ": expected a finite number of at least ", least, " but received ", value);
}

void checkFactors(const Tensor& t, const char* name, int64_t rows, int64_t factors) {
  expect(t, name, DType::float32, 2);
  require(t.rows() == rows && t.cols() == factors, ErrorCode::shape, name, ": expected shape [", rows, ", ", factors,
          "] but received ", text(t.shape));
}

void checkEntries(Job& job, const Csr& m, const char* name) {
  expectCsr(m, name);
  const CsrView v = m.view();
  require(v.indptr[0] == 0, ErrorCode::value, name, ".indptr: expected to start at 0 but received ", v.indptr[0]);
  for (int64_t u = 0; u < v.rows; ++u) {
    require(v.indptr[u] <= v.indptr[u + 1], ErrorCode::value, name, ".indptr: expected rising values but row ", u,
            " goes from ", v.indptr[u], " to ", v.indptr[u + 1]);
  }
  parallelFor(m.nnz(), 1 << 16, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t e = begin; e < end; ++e) {
      require(v.indices[e] >= 0 && v.indices[e] < v.cols, ErrorCode::range, name, ".indices: expected ids in 0 to ",
              v.cols - 1, " but entry ", e, " is ", v.indices[e]);
      require(std::isfinite(v.values[e]), ErrorCode::value, name, ".values: expected finite numbers but entry ", e,
              " is ", v.values[e]);
    }
  });
  job.checkCancelled();
}

void checkBothWays(Job& job, const Csr& users, const Csr& items) {
  checkEntries(job, users, "users");
  checkEntries(job, items, "items");
  require(users.rows() > 0 && users.cols > 0, ErrorCode::shape,
          "users: expected at least one row and one column but received [", users.rows(), ", ", users.cols, "]");
  require(items.rows() == users.cols && items.cols == users.rows() && items.nnz() == users.nnz(), ErrorCode::shape,
          "items: expected the transpose of users, [", users.cols, ", ", users.rows(), "] with ", users.nnz(),
          " entries, but received [", items.rows(), ", ", items.cols, "] with ", items.nnz());
}

Tensor randomFactors(Job& job, int64_t rows, int64_t factors, int64_t stride, double std, int64_t seed,
                     uint64_t first) {
  const Tensor out = Tensor::host(DType::float32, {rows, stride}, stride > factors);
  parallelFor(rows, 256, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      Random random(static_cast<uint64_t>(seed), first + static_cast<uint64_t>(r));
      for (int64_t k = 0; k < factors; ++k) {
        out.data<float>()[r * stride + k] = static_cast<float>(std * random.normal());
      }
    }
  });
  job.checkCancelled();
  return out;
}

Tensor copyOf(const Tensor& t) {
  const Tensor out = Tensor::host(t.dtype, t.shape);
  std::copy_n(t.data<float>(), t.count(), out.data<float>());
  return out;
}

}  // namespace topknot
