// The bag and the weight of every entry, in the order of the groups: the CUDA side of cpu/kernels/embedding_place.cpp.
// A thread for each entry looks for its bag among the offsets.
#pragma once
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

/// A warp for each bag: 1 / the number of its entries, padding left out.
__global__ void __launch_bounds__(embeddingThreads) bagScales(BagsView bags, float* scales) {
  const int64_t bag = warpOfGrid();
  if (bag >= bags.bags) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int64_t count = 0;
  const int64_t end = bags.offsets[bag + 1];
  for (int64_t i = bags.offsets[bag]; i < end; i += 32) {
    const bool kept = i + lane < end && bags.ids[i + lane] != bags.padding;
    count += __popc(__ballot_sync(allLanes, kept));
  }
  if (lane == 0) scales[bag] = 1.0f / static_cast<float>(count);
}

__global__ void __launch_bounds__(embeddingThreads) placeEntries(EmbeddingPlaceArgs a, const float* scales) {
  const int64_t i = int64_t{blockIdx.x} * embeddingThreads + threadIdx.x;
  if (i >= a.count) return;
  const int32_t entry = a.order[i];
  int64_t bag = 0, end = a.bags.bags;  // the last bag that starts at the entry or before it is in [bag, end)
  while (end - bag > 1) {
    const int64_t middle = bag + (end - bag) / 2;
    if (a.bags.offsets[middle] <= entry) bag = middle;
    else end = middle;
  }
  a.bagOf[i] = static_cast<int32_t>(bag);
  if (a.weightOf) a.weightOf[i] = a.mean ? scales[bag] : a.bags.weights[entry];
}

/// The `embeddingPlace` slot.
inline Status embeddingPlace(const Exec& exec, const EmbeddingPlaceArgs& a) {
  Queue queue(exec);
  if (a.count == 0) return queue.status();
  float* scales = nullptr;
  if (a.mean) {
    scales = queue.workspace<float>(a.bags.bags);
    queue.launch("bagScales", bagScales, warpGrid(a.bags.bags), embeddingThreads, a.bags, scales);
  }
  const Grid grid{(a.count + embeddingThreads - 1) / embeddingThreads};
  queue.launch("placeEntries", placeEntries, grid, embeddingThreads, a, scales);
  return queue.status();
}

}  // namespace topknot::cuda
