// Sums, means and maxima of bags of table rows, the CUDA side of cpu/kernels/embedding_bag.cpp: a warp for each bag.
// Sums run over the entries in order, so they are those of a CPU with fused multiply-adds.
#pragma once
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

template <RowFormat format, int V>
__global__ void __launch_bounds__(embeddingThreads, 4) embeddingBagSums(EmbeddingBagArgs a) {
  const int64_t bag = warpOfGrid();
  if (bag >= a.bags.bags) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t begin = a.bags.offsets[bag], end = a.bags.offsets[bag + 1], rows = rowsIn(a.bags, begin, end);
  for (int64_t block = 0; block < a.table.cols; block += 32 * V) {
    const int64_t c = block + lane * V;
    float sum[V];
    sumColumns<format>(a.table, a.bags, begin, end, c, sum);
    if (a.mode == BagMode::mean && rows > 0) {
      for (int k = 0; k < V; ++k) sum[k] /= static_cast<float>(rows);
    }
    if (c < a.table.cols) storeColumns(a.out + bag * a.table.cols, c, sum);
  }
}

/// The maximum; equal values: the earlier entry wins. A NaN wins over numbers.
template <RowFormat format, int V>
__global__ void __launch_bounds__(embeddingThreads, 4) embeddingBagMax(EmbeddingBagArgs a) {
  const int64_t bag = warpOfGrid();
  if (bag >= a.bags.bags) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t begin = a.bags.offsets[bag], end = a.bags.offsets[bag + 1], cols = a.table.cols;
  for (int64_t block = 0; block < cols; block += 32 * V) {
    const int64_t c = block + lane * V;
    const bool inside = c < cols;
    float rows[rowsInFlight][V], best[V];
    int32_t winner[V];
    for (int k = 0; k < V; ++k) best[k] = 0, winner[k] = -1;
    const auto load = [&](int slot, int64_t, int64_t id) {
      if (inside) loadColumns<format>(rowAt(a.table, id), c, rows[slot]);
    };
    forEntries(a.bags, begin, end, load, [&](int slot, int64_t entry, int64_t id, float) {
      if (!inside) return;
      for (int k = 0; k < V; ++k) {
        float x = rows[slot][k];
        if constexpr (quantized<format>) x = fmaf(x, a.table.scale[id], a.table.bias[id]);
        if (winner[k] < 0 || x > best[k] || x != x) {
          best[k] = x;
          winner[k] = static_cast<int32_t>(entry);
        }
      }
    });
    if (!inside) continue;
    storeColumns(a.out + bag * cols, c, best);
    for (int k = 0; a.winners && k < V; ++k) a.winners[bag * cols + c + k] = winner[k];
  }
}

/// The `embeddingBag` slot.
inline Status embeddingBag(const Exec& exec, const EmbeddingBagArgs& a) {
  Queue queue(exec);
  if (a.bags.bags == 0 || a.table.cols == 0) return queue.status();
  withRows(a.table, [&](auto format, auto columns) {
    constexpr RowFormat f = decltype(format)::value;
    constexpr int v = decltype(columns)::value;
    const Grid grid = warpGrid(a.bags.bags);
    if (a.mode == BagMode::max) {
      queue.launch("embeddingBagMax", embeddingBagMax<f, v>, grid, embeddingThreads, a);
    } else {
      queue.launch("embeddingBagSums", embeddingBagSums<f, v>, grid, embeddingThreads, a);
    }
  });
  return queue.status();
}

}  // namespace topknot::cuda
