// What the tests of the approximate index share.
#pragma once
#include <algorithm>
#include <cstring>

#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

namespace topknot {

inline constexpr HnswOptions options{.metric = Metric::innerProduct, .connectivity = 8, .expansionAdd = 64};

/// Rows around 20 centres.
inline Tensor clustered(int64_t rows, int64_t dims, uint64_t seed) {
  Tensor t = Tensor::host<float>({rows, dims});
  Random random(seed, 0);
  for (int64_t r = 0; r < rows; ++r) {
    Random centre(99, random.below(20));
    for (int64_t c = 0; c < dims; ++c)
      t.data<float>()[r * dims + c] = static_cast<float>(centre.normal() + 0.5 * random.normal());
  }
  return t;
}

inline Tensor ints(std::vector<int32_t> values) {
  Tensor t = Tensor::host<int32_t>({static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.data<int32_t>());
  return t;
}

inline Tensor range(int32_t begin, int32_t end) {
  std::vector<int32_t> values;
  for (int32_t i = begin; i < end; ++i) values.push_back(i);
  return ints(values);
}

inline Tensor none(int64_t dims) { return Tensor::host<float>({0, dims}); }

/// Share of the exact k best that the index found among keys 0 to n - 1, whose vectors these are.
inline double recall(Job& job, const Hnsw& index, const Tensor& items, const Tensor& queries, int64_t k,
                     int64_t expansion) {
  const TopkResult exact = ops::topk(job, queries, items, std::nullopt, k, Metric::innerProduct, {});
  const Tensor found = ops::hnswSearch(job, index, queries, k, expansion, std::nullopt).ids.tensor;
  int64_t hits = 0;
  for (int64_t q = 0; q < queries.rows(); ++q) {
    const int32_t* got = found.data<int32_t>() + q * k;
    for (int64_t i = 0; i < k; ++i) hits += std::count(got, got + k, exact.ids.data<int32_t>()[q * k + i]);
  }
  return static_cast<double>(hits) / static_cast<double>(queries.rows() * k);
}

inline bool same(const Tensor& a, const Tensor& b) {
  return a.shape == b.shape && std::memcmp(a.buffer->data(), b.buffer->data(), a.bytes()) == 0;
}
inline bool same(const HnswState& a, const HnswState& b) {
  return a.dimensions == b.dimensions && a.bound == b.bound && same(a.vectors, b.vectors) && same(a.keys, b.keys) &&
         same(a.graph, b.graph);
}

}  // namespace topknot
