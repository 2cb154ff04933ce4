#include "cuda/families.h"
#include "cuda/kernels/neighbours.cuh"
#include "cuda/kernels/nmf.cuh"
#include "cuda/kernels/spgemm.cuh"
#include "cuda/kernels/spmm.cuh"

namespace topknot::cuda {

void addSparse(Backend& table) {
  table.spmm = spmm;
  table.spgemm = spgemm;
  table.neighbours = neighbours;
  table.nmf = nmf;
}

}  // namespace topknot::cuda
