#include "cuda/families.h"
#include "cuda/kernels/als_block.cuh"
#include "cuda/kernels/als_cg.cuh"
#include "cuda/kernels/als_cholesky.cuh"
#include "cuda/kernels/als_loss.cuh"
#include "cuda/kernels/csr_scores.cuh"
#include "cuda/kernels/gram.cuh"
#include "cuda/kernels/matmul.cuh"

namespace topknot::cuda {

void addFactorization(Backend& table) {
  table.matmul = matmul;
  table.gram = gram;
  table.alsCholesky = [](const Exec& exec, const AlsArgs& args) { return alsCholesky(exec, args); };
  table.alsCg = [](const Exec& exec, const AlsArgs& args) { return alsCg(exec, args); };
  table.alsBlock = alsBlock;
  table.alsStep = alsStep;
  table.alsLoss = alsLoss;
  table.csrScores = csrScores;
}

}  // namespace topknot::cuda
