#include "cuda/families.h"
#include "cuda/kernels/topk.cuh"

namespace topknot::cuda {

void addSearch(Backend& table) {
  table.topk = [](const Exec& exec, const TopkArgs& args) { return topk(exec, args); };
}

}  // namespace topknot::cuda
