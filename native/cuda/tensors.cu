#include "cuda/families.h"
#include "cuda/kernels/cast.cuh"
#include "cuda/kernels/copy_matrix.cuh"

namespace topknot::cuda {

void addTensors(Backend& table) {
  table.cast = cast;
  table.copyMatrix = copyMatrix;
}

}  // namespace topknot::cuda
