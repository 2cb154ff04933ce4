// Exact top-k over float32 and 16-bit items, the CUDA side of cpu/kernels/topk.cpp; the scan is in topk_scan.cuh.
//
// The k best are selected by float32 sums over the columns in order (fused multiply-adds), then scored again in float64
// as on the CPU, and sorted. So the score of a pair has the CPU's bits; which items are among the k best may differ
// where float32 cannot tell their scores apart. Many queries take a way over the tensor cores that gives the same
// answers (topk_tensor.cuh).
#pragma once
#include "cuda/kernels/topk_tensor.cuh"

namespace topknot::cuda {

/// The `topk` slot. All pointers are to device memory; the work is queued on exec's stream.
inline Status topk(const Exec& exec, const TopkArgs& a, const TopkPlan& plan = {}) {
  Queue queue(exec);
  if (a.queries.rows == 0 || a.k == 0) return queue.status();
  float* queryNorms = nullptr;
  if (a.metric != Metric::innerProduct) {
    queryNorms = queue.workspace<float>(a.queries.rows);
    queue.launch("topkQueryNorms", topkQueryNorms, {ceilDiv(a.queries.rows * 32, topkThreads)}, topkThreads, a.queries,
                 queryNorms);
  }
  TopkSearch search{a.queries.rows, a.items.rows, a.k, a.filter};
  const bool tensor =
      a.queries.rows >= plan.tensorQueries && a.items.rows >= plan.tensorItems && a.k <= plan.largestListed;
  uint8_t* done = !tensor ? nullptr : plan.done ? plan.done : queue.workspace<uint8_t>(a.queries.rows);
  search.done = done;
  withFloats(a.items.type, [&](auto type) {
    constexpr RowFormat format = decltype(type)::value;
    const FloatPairs<format> pairs{{a.queries.data, a.queries.rows, a.queries.cols},
                                   {a.items.data, a.items.rows, a.items.cols},
                                   a.metric,
                                   queryNorms,
                                   a.itemNorms};
    if (tensor) topkByTensorCores(queue, exec, a, pairs, plan, done);
    topkSearch(queue, exec, search, pairs, TopkResults<format>(a), plan);
  });
  return queue.status();
}

}  // namespace topknot::cuda
