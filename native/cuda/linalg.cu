#include "cuda/families.h"
#include "cuda/kernels/cholesky.cuh"
#include "cuda/kernels/eigh.cuh"
#include "cuda/kernels/lu.cuh"
#include "cuda/kernels/qr.cuh"
#include "cuda/kernels/svd.cuh"

namespace topknot::cuda {

void addLinalg(Backend& table) {
  table.cholesky = cholesky;
  table.choleskySolve = choleskySolve;
  table.luSolve = luSolve;
  table.qr = qr;
  table.eigh = eigh;
  table.svd = svd;
}

}  // namespace topknot::cuda
