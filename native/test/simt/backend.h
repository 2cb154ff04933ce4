// The CUDA backend's table with the emulator behind it: the same files of kernels, compiled as plain C++.
#pragma once
#include <cstring>

#include "cuda/attention.cu"
#include "cuda/blocks.cu"
#include "cuda/embedding.cu"
#include "cuda/factorization.cu"
#include "cuda/linalg.cu"
#include "cuda/search.cu"
#include "cuda/sparse.cu"
#include "cuda/training.cu"

namespace topknot::cuda {

/// How the emulated table's ALS runs: see emulatedPlan.
inline AlsPlan emulatedAlsPlan;

/// How the searches of the emulated table run: tests set it to reach every path on small shapes.
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
  addLinalg(table);
  table.alsCholesky = [](const Exec& exec, const AlsArgs& args) { return alsCholesky(exec, args, emulatedAlsPlan); };
  table.alsCg = [](const Exec& exec, const AlsArgs& args) { return alsCg(exec, args, emulatedAlsPlan); };
  table.topk = [](const Exec& exec, const TopkArgs& args) { return topk(exec, args, emulatedPlan); };
  table.topkInt8 = [](const Exec& exec, const TopkInt8Args& args) { return topkInt8(exec, args, emulatedPlan); };
  table.topkBinary = [](const Exec& exec, const TopkBinaryArgs& args) { return topkBinary(exec, args, emulatedPlan); };
  table.selectTopk = [](const Exec& exec, const SelectTopkArgs& args) { return selectTopk(exec, args, emulatedPlan); };
  table.rankCounts = [](const Exec& exec, const RankCountsArgs& args) {
    return rankCounts(exec, args, emulatedPlan.slices);
  };
  return table;
}

}  // namespace topknot::cuda
