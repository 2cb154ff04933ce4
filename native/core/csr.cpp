#include "core/csr.h"

namespace topknot {

void expectCsr(const Csr& m, const char* name) {
  const std::string at = name;
  expect(m.indptr, (at + ".indptr").c_str(), DType::int64, 1);
  expect(m.indices, (at + ".indices").c_str(), DType::int32, 1);
  expect(m.values, (at + ".values").c_str(), DType::float32, 1);
  require(m.indptr.rows() >= 1, ErrorCode::shape, at, ".indptr: expected rows + 1 entries but received none");
  require(m.rows() <= INT32_MAX, ErrorCode::range, at, ": expected at most 2147483647 rows but received ", m.rows());
  require(m.cols >= 0 && m.cols <= INT32_MAX, ErrorCode::range, at, ": expected 0 to 2147483647 columns but received ",
          m.cols);
  // On a GPU it is a copy of a matrix that was checked here: to look at its last entry would be to wait for the GPU.
  const bool onHost = m.indptr.device().kind == Device::cpu;
  const int64_t nnz = onHost ? m.indptr.data<int64_t>()[m.rows()] : m.indices.rows();
  require(m.indices.rows() == nnz && m.values.rows() == nnz, ErrorCode::shape, at, ": indptr ends at ", nnz,
          " but there are ", m.indices.rows(), " indices and ", m.values.rows(), " values");
}

}  // namespace topknot
