// A batch of SVD++, the CUDA side of cpu/kernels/svdpp.cpp: a warp for each user, then a warp for each item. Every row
// has one writer, which visits its ratings in order.
#pragma once
#include "backend/rating_args.h"
#include "cuda/kernels/factor_rows.cuh"

namespace topknot::cuda {

/// z = n^-½ Σ y_j over the user's ratings; the sum of the errors' steps starts from zero. By a whole warp.
template <int V>
SIMT_DEVICE void startUser(const SvdppArgs& a, int64_t begin, int64_t end, float scale, float* z, float* sums) {
  const BagsView rated{a.ratings.indices, nullptr, 0, nullptr, -1};
  for (int64_t block = 0; block < a.stride; block += 32 * V) {
    const int64_t c = block + threadIdx.x % 32 * V;
    const bool inside = c < a.stride;
    float rows[rowsInFlight][V], sum[V] = {};
    const auto load = [&](int slot, int64_t, int64_t item) {
      if (inside) loadFactors(a.y + item * a.stride, c, rows[slot]);
    };
    forEntries(rated, begin, end, load, [&](int slot, int64_t, int64_t, float) {
      for (int k = 0; k < V && inside; ++k) sum[k] = fmaf(scale, rows[slot][k], sum[k]);
    });
    if (!inside) continue;
    const float zero[V] = {};
    storeColumns(z, c, sum);
    storeColumns(sums, c, zero);
  }
}

/// Block t, of one warp: the t-th user of the batch, with the items as they are.
template <int V>
__global__ void __launch_bounds__(32) svdppUsers(SvdppArgs a) {
  const int64_t at = blockIdx.x, user = a.users[at], begin = a.ratings.indptr[user], end = a.ratings.indptr[user + 1];
  const float keep = 1.0f - a.learningRate * a.regularization;
  const float scale = end > begin ? 1.0f / sqrtf(static_cast<float>(end - begin)) : 0.0f;
  float *z = a.z + at * a.stride, *sums = a.sums + at * a.stride, *p = a.p + user * a.stride;
  startUser<V>(a, begin, end, scale, z, sums);
  double squares = 0;
  for (int64_t e = begin; e < end; ++e) {
    const float* q = a.q + a.ratings.indices[e] * a.stride;
    const float error = a.ratings.values[e] - dotRows<V>(p, q, a.stride) - dotRows<V>(z, q, a.stride);
    const float step = a.learningRate * error;
    squares += static_cast<double>(error) * static_cast<double>(error);
    if (threadIdx.x == 0) a.errors[a.starts[at] + e - begin] = error;
    forColumns<V>(a.stride, [&](int64_t c) {
      float ps[V], qs[V], ss[V];
      loadFactors(p, c, ps);
      loadFactors(q, c, qs);
      loadFactors(sums, c, ss);
      for (int k = 0; k < V; ++k) {
        ss[k] = fmaf(error, qs[k], ss[k]);
        ps[k] = c + k == a.factors + 1 ? 1.0f : fmaf(step, qs[k], keep * ps[k]);
      }
      storeColumns(sums, c, ss);
      storeColumns(p, c, ps);
    });
  }
  if (threadIdx.x == 0) a.squares[at] = squares;
  forColumns<V>(a.stride, [&](int64_t c) {
    float ps[V], zs[V], ss[V];
    loadFactors(p, c, ps);
    loadFactors(z, c, zs);
    loadFactors(sums, c, ss);
    for (int k = 0; k < V; ++k) {
      zs[k] += ps[k];
      ss[k] = c + k < a.factors ? ss[k] * scale : 0.0f;  // y has no biases
    }
    storeColumns(z, c, zs);
    storeColumns(sums, c, ss);
  });
}

/// Block r, of one warp: the r-th item of the batch, its entries by user.
template <int V>
__global__ void __launch_bounds__(32) svdppItems(SvdppArgs a) {
  const int64_t begin = a.runs[blockIdx.x], end = a.runs[blockIdx.x + 1], item = a.entries[begin].item;
  const float keep = 1.0f - a.learningRate * a.regularization;
  forColumns<V>(a.stride, [&](int64_t c) {
    float qs[V], ys[V];
    loadFactors(a.q + item * a.stride, c, qs);
    loadFactors(a.y + item * a.stride, c, ys);
    for (int64_t e = begin; e < end; ++e) {
      const SvdppEntry entry = a.entries[e];
      const float step = a.learningRate * a.errors[entry.entry];
      float zs[V], ss[V];
      loadFactors(a.z + entry.user * a.stride, c, zs);
      loadFactors(a.sums + entry.user * a.stride, c, ss);
      for (int k = 0; k < V; ++k) {
        qs[k] = c + k == a.factors ? 1.0f : fmaf(step, zs[k], keep * qs[k]);
        ys[k] = fmaf(a.learningRate, ss[k], keep * ys[k]);
      }
    }
    storeColumns(a.q + item * a.stride, c, qs);
    storeColumns(a.y + item * a.stride, c, ys);
  });
}

/// The `svdpp` slot.
inline Status svdpp(const Exec& exec, const SvdppArgs& a) {
  Queue queue(exec);
  if (a.count == 0) return queue.status();
  withStrideColumns(a.stride, [&](auto columns) {
    constexpr int v = decltype(columns)::value;
    queue.launch("svdppUsers", svdppUsers<v>, {a.count}, 32, a);
    if (a.itemCount > 0) queue.launch("svdppItems", svdppItems<v>, {a.itemCount}, 32, a);
  });
  return queue.status();
}

}  // namespace topknot::cuda
