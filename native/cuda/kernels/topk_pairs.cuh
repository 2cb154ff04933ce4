// Pairs of queries and items as the scans of topk score them, and what becomes of the k best.
#pragma once
#include <cmath>

#include "cuda/kernels/topk_scan.cuh"

namespace topknot::cuda {

/// out[q] = |query q|², a warp for each.
__global__ void topkQueryNorms(MatrixView queries, float* out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t query = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  float sum = 0;
  if (query < queries.rows) {
    const float* row = queries.data + query * queries.cols;
    for (int64_t c = lane; c < queries.cols; c += 32) sum = fmaf(row[c], row[c], sum);
  }
  sum = warpSum(sum);
  if (lane == 0 && query < queries.rows) out[query] = sum;
}

/// Greater is better: the squared distance counts negative. queryNorms and itemNorms may be null for inner products.
SIMT_DEVICE float rankedScore(Metric metric, const float* queryNorms, const float* itemNorms, int64_t query,
                              int64_t item, float product) {
  if (metric == Metric::innerProduct) return product;
  const float queryNorm = queryNorms[query], itemNorm = itemNorms[item];
  if (metric == Metric::cosine) {
    const float norms = sqrtf(queryNorm) * sqrtf(itemNorm);
    return norms == 0 ? 0.0f : product / norms;
  }
  const float distance = fmaf(-2.0f, product, queryNorm + itemNorm);
  return distance < 0 ? 0.0f : -distance;  // rounding can take it below zero
}

/// A Source: pairs of float32 queries and items of any float.
template <RowFormat format>
struct FloatPairs {
  static constexpr bool sharesItems = true;
  FloatRows<RowFormat::float32> queries;
  FloatRows<format> items;
  Metric metric;
  const float *queryNorms, *itemNorms;

  template <int Q>
  __device__ void scores(int64_t firstQuery, int64_t firstItem, float (&out)[Q]) const {
    tileSums(queries, items, firstQuery, firstItem, out, AddProduct());
    const int64_t item = firstItem + threadIdx.x;
    if (item >= items.rows) return;
    for (int q = 0; q < Q && firstQuery + q < queries.rows; ++q) {
      out[q] = rankedScore(metric, queryNorms, itemNorms, firstQuery + q, item, out[q]);
    }
  }
};

/// An Output: ids, and scores as pair_score.cuh gives them.
template <RowFormat format>
struct TopkResults : ScoredIds {
  static constexpr bool rescores = true;
  TopkArgs args;

  explicit TopkResults(const TopkArgs& a) : ScoredIds(a.k, a.ids, a.scores, a.metric == Metric::l2), args(a) {}
  __device__ float score(int64_t query, int64_t item) const { return pairScore<format>(args, query, item); }
};

}  // namespace topknot::cuda
