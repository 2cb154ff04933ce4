#include "cuda/families.h"
#include "cuda/kernels/attention.cuh"

namespace topknot::cuda {

void addAttention(Backend& table) { table.attention = attention; }

}  // namespace topknot::cuda
