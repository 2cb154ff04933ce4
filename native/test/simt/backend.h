// The CUDA backend's table with the emulator behind it: the same files of kernels, compiled as plain C++.
#pragma once
#include <cstring>

#include "cuda/attention.cu"
#include "cuda/embedding.cu"
#include "cuda/factorization.cu"
#include "cuda/search.cu"

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
  addSearch(table);
  addEmbedding(table);
  addAttention(table);
  addFactorization(table);
  table.topk = [](const Exec& exec, const TopkArgs& args) { return topk(exec, args, emulatedPlan); };
  return table;
}

}  // namespace topknot::cuda
