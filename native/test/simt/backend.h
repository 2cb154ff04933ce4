// The CUDA backend's table with the emulator behind it: the same kernels and the same host code of cuda/kernels/.
#pragma once
#include <cstring>

#include "cuda/kernels/als.cuh"
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/embedding_bag.cuh"
#include "cuda/kernels/embedding_group.cuh"
#include "cuda/kernels/embedding_update.cuh"
#include "cuda/kernels/gather.cuh"
#include "cuda/kernels/gram.cuh"
#include "cuda/kernels/topk.cuh"

namespace topknot::cuda {

/// How the emulated table's topk runs: tests set it to reach every path on small shapes.
inline TopkPlan emulatedPlan;

inline Backend emulatedBackend() {
  Backend table{.name = "cuda", .isa = "simt"};
  table.allocate = [](const Exec&, size_t bytes, void** out) {
    *out = simt::allocate(bytes);
    return Status{};
  };
  table.release = [](const Exec&, void* data) {
    simt::release(data);
    return Status{};
  };
  table.upload = [](const Exec&, void* device, const void* host, size_t bytes) {
    if (bytes > 0) std::memcpy(device, host, bytes);
    return Status{};
  };
  table.download = [](const Exec&, void* host, const void* device, size_t bytes) {
    if (bytes > 0) std::memcpy(host, device, bytes);
    return Status{};
  };
  table.topk = [](const Exec& exec, const TopkArgs& args) { return topk(exec, args, emulatedPlan); };
  table.attention = attention;
  table.matmul = matmul;
  table.gram = gram;
  table.alsCholesky = alsCholesky;
  table.alsCg = alsCg;
  table.gather = gather;
  table.embeddingBag = embeddingBag;
  table.embeddingGroup = embeddingGroup;
  table.embeddingGradient = embeddingGradient;
  table.embeddingWeightGradient = embeddingWeightGradient;
  table.embeddingUpdate = embeddingUpdate;
  return table;
}

}  // namespace topknot::cuda
