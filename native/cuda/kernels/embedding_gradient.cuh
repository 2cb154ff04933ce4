// Gradients of embedding bags, the CUDA side of cpu/kernels/embedding_gradient.cpp: by the rows that were looked up,
// and by the weights of the entries. A warp sums the entries of a group. Groups longer than a segment (a popular row)
// are summed in segments first, so that no warp works for long; borders depend on the entries alone, so results do not
// depend on the device.
#pragma once
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

/// Entries of a long group that one warp sums.
inline constexpr int64_t segmentEntries = 256;

/// out = Σ over the entries [begin, end), columns [c, c + V). By a whole warp.
template <int V>
SIMT_DEVICE void sumGradients(const RowGradientsView& view, int64_t begin, int64_t end, int64_t c, float (&out)[V]) {
  if (!view.winners) return sumColumns<RowFormat::float32>(view.gradient, view.groups, begin, end, c, out);
  const int64_t cols = view.gradient.cols;
  const float* gradient = static_cast<const float*>(view.gradient.data);
  for (int k = 0; k < V; ++k) out[k] = 0;
  if (c >= cols) return;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t at = view.groups.ids[i] * cols + c;
    const int32_t self = view.order[i];
    for (int k = 0; k < V; ++k) out[k] += view.winners[at + k] == self ? gradient[at + k] : 0.0f;
  }
}

// The entries are cut at the multiples of segmentEntries. A long group is longer than a segment, so a segment meets at
// most two: one that comes from before (or starts at the cut), slot 2 s, and one that starts inside, slot 2 s + 1.
SIMT_DEVICE bool isLong(const BagsView& groups, int64_t g) {
  return groups.offsets[g + 1] - groups.offsets[g] > segmentEntries;
}
SIMT_DEVICE int64_t slotOf(int64_t begin, int64_t segment) {
  return 2 * segment + (begin > segment * segmentEntries ? 1 : 0);
}

/// The group of an entry.
SIMT_DEVICE int64_t groupOf(const BagsView& groups, int64_t entry) {
  int64_t low = 0, high = groups.bags;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (groups.offsets[middle] <= entry) low = middle;
    else high = middle;
  }
  return low;
}

/// Warp `slot`: parts[slot] = the part of the sum of a long group that lies in segment slot / 2.
template <int V>
__global__ void __launch_bounds__(embeddingThreads)
    gradientSegments(RowGradientsView view, int64_t slots, float* parts) {
  const int64_t slot = warpOfGrid(), segment = slot / 2;
  if (slot >= slots) return;
  const BagsView& groups = view.groups;
  const int64_t from = segment * segmentEntries, entries = groups.offsets[groups.bags];
  const int64_t to = from + segmentEntries < entries ? from + segmentEntries : entries;
  const int64_t g = groupOf(groups, slot % 2 ? to - 1 : from);
  const int64_t begin = groups.offsets[g], end = groups.offsets[g + 1];
  if (!isLong(groups, g) || slotOf(begin, segment) != slot) return;
  const int64_t cols = view.gradient.cols;
  for (int64_t block = 0; block < cols; block += 32 * V) {
    const int64_t c = block + threadIdx.x % 32 * V;
    float sum[V];
    sumGradients(view, begin > from ? begin : from, end < to ? end : to, c, sum);
    if (c < cols) storeColumns(parts + slot * cols, c, sum);
  }
}

/// out = the gradient of the row of group g, columns [c, c + V). By a whole warp.
template <int V>
SIMT_DEVICE void rowGradient(const RowGradientsView& view, const float* parts, int64_t g, int64_t c, float (&out)[V]) {
  const int64_t begin = view.groups.offsets[g], end = view.groups.offsets[g + 1];
  if (!isLong(view.groups, g)) return sumGradients(view, begin, end, c, out);
  for (int k = 0; k < V; ++k) out[k] = 0;
  if (c >= view.gradient.cols) return;
  for (int64_t segment = begin / segmentEntries; segment * segmentEntries < end; ++segment) {
    float part[V];
    loadColumns<RowFormat::float32>(parts + slotOf(begin, segment) * view.gradient.cols, c, part);
    for (int k = 0; k < V; ++k) out[k] += part[k];
  }
}

/// The sums of the long groups' segments; `entries` is the number of entries of all groups, or more.
template <int V>
const float* sumSegments(Queue& queue, const RowGradientsView& view, int64_t entries) {
  const int64_t slots = 2 * ((entries + segmentEntries - 1) / segmentEntries);
  float* parts = queue.workspace<float>(slots * view.gradient.cols);
  queue.launch("gradientSegments", gradientSegments<V>, warpGrid(slots), embeddingThreads, view, slots, parts);
  return parts;
}

template <int V>
__global__ void __launch_bounds__(embeddingThreads) writeGradients(EmbeddingGradientArgs a, const float* parts) {
  const int64_t g = warpOfGrid(), cols = a.rows.gradient.cols;
  if (g >= a.rows.groups.bags) return;
  for (int64_t block = 0; block < cols; block += 32 * V) {
    const int64_t c = block + threadIdx.x % 32 * V;
    float sum[V];
    rowGradient(a.rows, parts, g, c, sum);
    if (c < cols) storeColumns(a.out + g * cols, c, sum);
  }
}

/// The `embeddingGradient` slot.
inline Status embeddingGradient(const Exec& exec, const EmbeddingGradientArgs& a) {
  Queue queue(exec);
  const RowGradientsView& view = a.rows;
  if (view.groups.bags == 0 || view.gradient.cols == 0) return queue.status();
  withLaneColumns(view.gradient.cols, [&](auto columns) {
    constexpr int v = decltype(columns)::value;
    const float* parts = sumSegments<v>(queue, view, view.entries);
    queue.launch("writeGradients", writeGradients<v>, warpGrid(view.groups.bags), embeddingThreads, a, parts);
  });
  return queue.status();
}

/// A warp for each bag; its entries one after another, the row's columns across the lanes.
template <RowFormat format, int V>
__global__ void __launch_bounds__(embeddingThreads) weightGradients(EmbeddingWeightGradientArgs a) {
  const int64_t bag = warpOfGrid();
  if (bag >= a.bags.bags) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t cols = a.table.cols;
  const float* gradient = a.gradient + bag * cols;
  float total = 0;
  if constexpr (quantized<format>) {
    for (int64_t c = lane; c < cols; c += 32) total += gradient[c];
    total = warpSum(total);
  }
  for (int64_t i = a.bags.offsets[bag]; i < a.bags.offsets[bag + 1]; ++i) {
    const int64_t id = a.bags.ids[i];
    float dot = 0;
    if (id != a.bags.padding) {
      for (int64_t c = lane * V; c < cols; c += 32 * V) {
        float x[V];
        loadColumns<format>(rowAt(a.table, id), c, x);
        for (int k = 0; k < V; ++k) dot = fmaf(x[k], gradient[c + k], dot);
      }
    }
    dot = warpSum(dot);
    if constexpr (quantized<format>) {
      if (id != a.bags.padding) dot = fmaf(a.table.scale[id], dot, a.table.bias[id] * total);
    }
    if (lane == 0) a.out[i] = dot;
  }
}

/// The `embeddingWeightGradient` slot.
inline Status embeddingWeightGradient(const Exec& exec, const EmbeddingWeightGradientArgs& a) {
  Queue queue(exec);
  if (a.bags.bags == 0) return queue.status();
  withRows(a.table, [&](auto format, auto columns) {
    queue.launch("weightGradients", weightGradients<decltype(format)::value, decltype(columns)::value>,
                 warpGrid(a.bags.bags), embeddingThreads, a);
  });
  return queue.status();
}

}  // namespace topknot::cuda
