#include "cuda/families.h"
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/attention_backward.cuh"

namespace topknot::cuda {

void addAttention(Backend& table) {
  table.attention = attention;
  table.attentionBackward = attentionBackward;
}

}  // namespace topknot::cuda
