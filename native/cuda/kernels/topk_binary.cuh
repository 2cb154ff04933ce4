// The k rows of bits with the least Hamming distance, the CUDA side of cpu/kernels/topk_binary.cpp. Whole numbers, so
// both devices give the same answers.
#pragma once
#include "cuda/kernels/topk_scan.cuh"

namespace topknot::cuda {

struct AddDifferentBits {
  __device__ int operator()(int sum, uint32_t query, uint32_t item) const { return sum + __popc(query ^ item); }
};

/// A Source.
struct BitPairs {
  static constexpr bool sharesItems = true;
  ByteRows queries, items;

  template <int Q>
  __device__ void scores(int64_t firstQuery, int64_t firstItem, float (&out)[Q]) const {
    int bits[Q];
    tileSums(queries, items, firstQuery, firstItem, bits, AddDifferentBits());
    for (int q = 0; q < Q; ++q) out[q] = -static_cast<float>(bits[q]);
  }
};

/// The `topkBinary` slot.
inline Status topkBinary(const Exec& exec, const TopkBinaryArgs& a, const TopkPlan& plan = {}) {
  Queue queue(exec);
  const BitPairs pairs{{a.queries, a.queryCount, a.cols}, {a.items, a.rows, a.cols}};
  topkSearch(queue, exec, {a.queryCount, a.rows, a.k, a.filter}, pairs, ScoredIds(a.k, a.ids, a.scores, true), plan);
  return queue.status();
}

}  // namespace topknot::cuda
