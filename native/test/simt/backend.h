// The CUDA backend's table with the emulator behind it: the same files of kernels, compiled as plain C++.
#pragma once
#include <cstring>

#include "cuda/attention.cu"
#include "cuda/blocks.cu"
#include "cuda/embedding.cu"
#include "cuda/factorization.cu"
#include "cuda/search.cu"
#include "cuda/sparse.cu"
#include "cuda/training.cu"

namespace topknot::cuda {

/// How the emulated table's topk runs: tests set it to reach every path on small shapes.
inline TopkPlan emulatedPlan;

inline Status emulatedCopy(const Exec& exec, void* to, const void* from, size_t bytes) {
  const Queue queue(exec);
  if (bytes > 0 && queue.status().ok()) std::memcpy(to, from, bytes);
  return queue.status();
}

inline Backend emulatedBackend() {
  Backend table{.name = "cuda", .isa = "simt"};
  table.allocate = [](const Exec& exec, size_t bytes, void** out) {
    Queue queue(exec);
    *out = queue.allocate(bytes);
    return queue.status();
  };
  table.release = [](const Exec&, void* data) {
    try {
      simt::release(data);
    } catch (const simt::Fault& fault) {
      return failure(ErrorCode::internal, "%s", fault.what());
    }
    return Status{};
  };
  table.upload = emulatedCopy;
  table.download = emulatedCopy;
  table.copy = emulatedCopy;
  addSearch(table);
  addEmbedding(table);
  addAttention(table);
  addBlocks(table);
  addFactorization(table);
  addSparse(table);
  addTraining(table);
  table.topk = [](const Exec& exec, const TopkArgs& args) { return topk(exec, args, emulatedPlan); };
  return table;
}

}  // namespace topknot::cuda
