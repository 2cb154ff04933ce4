// Sparse times dense, the CUDA side of cpu/kernels/spmm.cpp: a warp sums a row of the result over a tile of columns,
// which lie across its lanes. Rows of more than spmmSegment entries (a popular item) are summed in segments first, so
// that no warp works for long; borders depend on the entries alone, so results do not depend on the device.
#pragma once
#include "backend/spmm_args.h"
#include "cuda/device_scan.h"
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

inline constexpr int64_t spmmSegment = 512;  // entries

SIMT_DEVICE int64_t selectedRow(const int32_t* rows, int64_t q) { return rows ? rows[q] : q; }

/// counts[q] = the segments of row q of the result, 0 for one that a warp sums at once; counts[a.count] = 0.
__global__ void __launch_bounds__(embeddingThreads) spmmSegmentCounts(SpmmArgs a, int32_t* counts) {
  const int64_t q = int64_t{blockIdx.x} * embeddingThreads + threadIdx.x;
  if (q > a.count) return;
  int64_t entries = 0;
  if (q < a.count) {
    const int64_t row = selectedRow(a.rows, q);
    entries = a.a.indptr[row + 1] - a.a.indptr[row];
  }
  counts[q] = entries > spmmSegment ? static_cast<int32_t>((entries + spmmSegment - 1) / spmmSegment) : 0;
}

/// sum = Σ a_e b_e, columns [c, c + V), over the entries [begin, end) in order. By a whole warp; a lane whose columns
/// lie behind the last one keeps zeros.
template <int V>
SIMT_DEVICE void sumProducts(const SpmmArgs& a, int64_t begin, int64_t end, int64_t c, float (&sum)[V]) {
  const bool inside = c < a.cols;
  const BagsView entries{a.a.indices, nullptr, 0, a.a.values, -1};
  float rows[rowsInFlight][V];
  for (int k = 0; k < V; ++k) sum[k] = 0;
  const auto load = [&](int slot, int64_t, int64_t id) {
    if (inside) loadColumns<RowFormat::float32>(a.b + id * a.ldb, c, rows[slot]);
  };
  forEntries(entries, begin, end, load, [&](int slot, int64_t, int64_t, float weight) {
    if (!inside) return;
    for (int k = 0; k < V; ++k) sum[k] = fmaf(weight, rows[slot][k], sum[k]);
  });
}

/// Warp s · tiles + t: parts[s] = the sum of segment s over the t-th 32 V columns.
template <int V>
__global__ void __launch_bounds__(embeddingThreads)
    spmmSegments(SpmmArgs a, const int32_t* starts, int64_t segments, int64_t tiles, float* parts) {
  const int64_t task = warpOfGrid(), segment = task / tiles;
  if (segment >= segments) return;
  int64_t q = 0;  // whose segment it is: the last with starts[q] <= segment
  for (int64_t high = a.count; high - q > 1;) {
    const int64_t middle = q + (high - q) / 2;
    if (starts[middle] <= segment) q = middle;
    else high = middle;
  }
  const int64_t row = selectedRow(a.rows, q), last = a.a.indptr[row + 1];
  const int64_t begin = a.a.indptr[row] + (segment - starts[q]) * spmmSegment;
  const int64_t c = task % tiles * (32 * V) + threadIdx.x % 32 * V;
  float sum[V];
  sumProducts(a, begin, begin + spmmSegment < last ? begin + spmmSegment : last, c, sum);
  if (c < a.cols) storeColumns(parts + segment * a.cols, c, sum);
}

/// Warp q · tiles + t: row q of the result over the t-th 32 V columns.
template <int V>
__global__ void __launch_bounds__(embeddingThreads)
    spmmRows(SpmmArgs a, const int32_t* starts, int64_t tiles, const float* parts) {
  const int64_t task = warpOfGrid(), q = task / tiles;
  if (q >= a.count) return;
  const int64_t c = task % tiles * (32 * V) + threadIdx.x % 32 * V;
  float sum[V];
  if (starts[q] == starts[q + 1]) {
    const int64_t row = selectedRow(a.rows, q);
    sumProducts(a, a.a.indptr[row], a.a.indptr[row + 1], c, sum);
  } else {
    for (int k = 0; k < V; ++k) sum[k] = 0;
    for (int32_t s = starts[q]; s < starts[q + 1] && c < a.cols; ++s) {
      float part[V];
      loadColumns<RowFormat::float32>(parts + s * a.cols, c, part);
      for (int k = 0; k < V; ++k) sum[k] += part[k];
    }
  }
  if (c < a.cols) storeColumns(a.out + q * a.ldo, c, sum);
}

template <int V>
void queueSpmmOf(Queue& queue, const SpmmArgs& a) {
  const int64_t tiles = (a.cols + 32 * V - 1) / (32 * V);
  int32_t* counts = queue.workspace<int32_t>(a.count + 1);
  int32_t* starts = queue.workspace<int32_t>(a.count + 1);
  queue.launch("spmmSegmentCounts", spmmSegmentCounts, {a.count / embeddingThreads + 1}, embeddingThreads, a, counts);
  exclusiveSum(queue, counts, starts, a.count + 1);
  const int64_t segments = queue.fetch(starts + a.count);
  float* parts = nullptr;
  if (segments > 0) {
    parts = queue.workspace<float>(segments * a.cols);
    queue.launch("spmmSegments", spmmSegments<V>, warpGrid(segments * tiles), embeddingThreads, a, starts, segments,
                 tiles, parts);
  }
  queue.launch("spmmRows", spmmRows<V>, warpGrid(a.count * tiles), embeddingThreads, a, starts, tiles, parts);
}

inline void queueSpmm(Queue& queue, const SpmmArgs& a) {
  if (a.count == 0 || a.cols == 0) return;
  // The columns that one load takes: parts of wider matrices may start anywhere.
  const auto fits = [&](int64_t v) {
    const auto whole = [v](const float* p) {
      return reinterpret_cast<uintptr_t>(p) % (4 * static_cast<size_t>(v)) == 0;
    };
    return a.cols > 16 * v && a.cols % v == 0 && a.ldb % v == 0 && a.ldo % v == 0 && whole(a.b) && whole(a.out);
  };
  if (fits(4)) queueSpmmOf<4>(queue, a);
  else if (fits(2)) queueSpmmOf<2>(queue, a);
  else queueSpmmOf<1>(queue, a);
}

/// The `spmm` slot.
inline Status spmm(const Exec& exec, const SpmmArgs& a) {
  Queue queue(exec);
  queueSpmm(queue, a);
  return queue.status();
}

}  // namespace topknot::cuda
