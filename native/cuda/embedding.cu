#include "cuda/families.h"
#include "cuda/kernels/embedding_bag.cuh"
#include "cuda/kernels/embedding_group.cuh"
#include "cuda/kernels/embedding_place.cuh"
#include "cuda/kernels/embedding_quantize.cuh"
#include "cuda/kernels/embedding_update.cuh"
#include "cuda/kernels/first_not_finite.cuh"
#include "cuda/kernels/gather.cuh"

namespace topknot::cuda {

void addEmbedding(Backend& table) {
  table.firstNotFinite = firstNotFinite;
  table.gather = gather;
  table.embeddingBag = embeddingBag;
  table.embeddingGroup = embeddingGroup;
  table.embeddingPlace = embeddingPlace;
  table.embeddingGradient = embeddingGradient;
  table.embeddingWeightGradient = embeddingWeightGradient;
  table.embeddingUpdate = embeddingUpdate;
  table.embeddingQuantize = embeddingQuantize;
}

}  // namespace topknot::cuda
