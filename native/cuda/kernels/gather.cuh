// Rows out of a table, in the order of their ids: the CUDA side of cpu/kernels/gather.cpp. A warp for each row.
#pragma once
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

template <typename Unit>
__global__ void __launch_bounds__(embeddingThreads) gatherCopy(GatherArgs a) {
  const int64_t row = warpOfGrid();
  if (row >= a.count) return;
  const int64_t units = a.table.rowBytes() / static_cast<int64_t>(sizeof(Unit));
  const Unit* from = static_cast<const Unit*>(rowAt(a.table, a.ids[row]));
  Unit* to = static_cast<Unit*>(a.out) + row * units;
  for (int64_t i = threadIdx.x % 32; i < units; i += 32) to[i] = from[i];
}

template <RowFormat format, int V>
__global__ void __launch_bounds__(embeddingThreads) gatherWiden(GatherArgs a) {
  const int64_t row = warpOfGrid();
  if (row >= a.count) return;
  const int64_t id = a.ids[row];
  float* out = static_cast<float*>(a.out) + row * a.table.cols;
  for (int64_t c = threadIdx.x % 32 * V; c < a.table.cols; c += 32 * V) {
    float x[V];
    loadColumns<format>(rowAt(a.table, id), c, x);
    for (int k = 0; k < V; ++k) x[k] = fmaf(x[k], a.table.scale[id], a.table.bias[id]);
    storeColumns(out, c, x);
  }
}

/// The `gather` slot.
inline Status gather(const Exec& exec, const GatherArgs& a) {
  Queue queue(exec);
  if (a.count == 0 || a.table.cols == 0) return queue.status();
  const Grid grid = warpGrid(a.count);
  withRows(a.table, [&](auto format, auto columns) {
    constexpr RowFormat f = decltype(format)::value;
    if constexpr (quantized<f>) {
      queue.launch("gatherWiden", gatherWiden<f, decltype(columns)::value>, grid, embeddingThreads, a);
    } else if (a.table.rowBytes() % 16 == 0) {
      queue.launch("gatherCopy", gatherCopy<Pack<uint32_t, 4>>, grid, embeddingThreads, a);
    } else if (a.table.rowBytes() % 4 == 0) {
      queue.launch("gatherCopy", gatherCopy<uint32_t>, grid, embeddingThreads, a);
    } else {
      queue.launch("gatherCopy", gatherCopy<uint16_t>, grid, embeddingThreads, a);
    }
  });
  return queue.status();
}

}  // namespace topknot::cuda
