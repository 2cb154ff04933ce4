#include "cuda/families.h"
#include "cuda/kernels/als.cuh"
#include "cuda/kernels/gram.cuh"
#include "cuda/kernels/matmul.cuh"

namespace topknot::cuda {

void addFactorization(Backend& table) {
  table.matmul = matmul;
  table.gram = gram;
  table.alsCholesky = alsCholesky;
  table.alsCg = alsCg;
}

}  // namespace topknot::cuda
