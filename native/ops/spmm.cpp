#include "backend/registry.h"
#include "models/placed.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot::ops {

Tensor spmm(Job& job, Csr matrix, Tensor dense) {
  expectOnHost(matrix, "matrix");
  expectCsr(matrix, "matrix");
  expect(dense, "dense", DType::float32, 2);
  require(dense.rows() == matrix.cols, ErrorCode::shape, "dense: expected ", matrix.cols,
          " rows, as many as the sparse matrix has columns, but received ", dense.rows());
  const Device device = dense.device();
  matrix = copyTo(matrix, device);
  const Tensor out = empty<float>(device, {matrix.rows(), dense.cols()});
  run(device, &Backend::spmm, "spmm", job.exec(),
      SpmmArgs{matrix.view(), nullptr, matrix.rows(), dense.data<float>(), dense.cols(), dense.cols(),
               out.data<float>(), dense.cols()});
  job.checkCancelled();
  return out;
}

}  // namespace topknot::ops
