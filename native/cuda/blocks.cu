#include "cuda/families.h"
#include "cuda/kernels/elementwise.cuh"
#include "cuda/kernels/layer_norm.cuh"
#include "cuda/kernels/reduce_gradient.cuh"
#include "cuda/kernels/softmax.cuh"

namespace topknot::cuda {

void addBlocks(Backend& table) {
  table.unary = unary;
  table.unaryGradient = unaryGradient;
  table.binary = binary;
  table.reduce = reduce;
  table.reduceGradient = reduceGradient;
  table.softmax = softmax;
  table.softmaxGradient = softmaxGradient;
  table.layerNorm = layerNorm;
  table.layerNormGradient = layerNormGradient;
}

}  // namespace topknot::cuda
