// Rows of embedding tables as a warp reads them, the CUDA side of cpu/kernels/embedding_rows-inl.h: lane l holds V
// neighbouring columns of a block of 32 V, in one load; ids are read by 32 and handed round by shuffles; the rows of
// several entries are in flight at once.
#pragma once
#include "backend/embedding_args.h"
#include "core/dtype.h"
#include "cuda/kernels/team.cuh"

namespace topknot::cuda {

inline constexpr int embeddingThreads = 256;  // of a block
inline constexpr int embeddingWarps = embeddingThreads / 32;
inline constexpr int rowsInFlight = 4;

template <RowFormat format>
inline constexpr bool quantized = format == RowFormat::int8 || format == RowFormat::int4;

/// x = columns [c, c + V) of a row, for int8 and int4 the stored numbers. c is a multiple of V, V is even for int4.
template <RowFormat format, int V>
SIMT_DEVICE void loadColumns(const void* row, int64_t c, float (&x)[V]) {
  if constexpr (format == RowFormat::float32) {
    const auto p = reinterpret_cast<const Pack<float, V>*>(static_cast<const float*>(row) + c);
    for (int k = 0; k < V; ++k) x[k] = p->v[k];
  } else if constexpr (format == RowFormat::float16 || format == RowFormat::bfloat16) {
    const Pack<uint16_t, V> p = *reinterpret_cast<const Pack<uint16_t, V>*>(static_cast<const uint16_t*>(row) + c);
    for (int k = 0; k < V; ++k) {
      if constexpr (format == RowFormat::float16) x[k] = toFloat(Float16{p.v[k]});
      else x[k] = toFloat(BFloat16{p.v[k]});
    }
  } else if constexpr (format == RowFormat::int8) {
    const Pack<int8_t, V> p = *reinterpret_cast<const Pack<int8_t, V>*>(static_cast<const int8_t*>(row) + c);
    for (int k = 0; k < V; ++k) x[k] = static_cast<float>(p.v[k]);
  } else {
    const auto at = static_cast<const uint8_t*>(row) + c / 2;
    const Pack<uint8_t, V / 2> p = *reinterpret_cast<const Pack<uint8_t, V / 2>*>(at);
    for (int k = 0; k < V; ++k) x[k] = static_cast<float>(p.v[k / 2] >> (k % 2 * 4) & 15);
  }
}

template <int V>
SIMT_DEVICE void storeColumns(float* row, int64_t c, const float (&x)[V]) {
  Pack<float, V> p;
  for (int k = 0; k < V; ++k) p.v[k] = x[k];
  *reinterpret_cast<Pack<float, V>*>(row + c) = p;
}

SIMT_DEVICE const void* rowAt(const TableView& table, int64_t id) {
  return static_cast<const char*>(table.data) + id * table.rowBytes();
}

/// Calls f(entry, id, weight) in order for the entries [begin, end) that are not padding; `ahead(slot, entry, id)` was
/// called before it for the same slot, up to rowsInFlight entries early. By a whole warp, all lanes alike.
template <typename Ahead, typename F>
SIMT_DEVICE void forEntries(const BagsView& bags, int64_t begin, int64_t end, Ahead&& ahead, F&& f) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t base = begin; base < end; base += 32) {
    const int count = static_cast<int>(end - base < 32 ? end - base : 32);
    const int32_t mine = lane < count ? bags.ids[base + lane] : 0;
    const float weight = lane < count && bags.weights ? bags.weights[base + lane] : 1.0f;
    const unsigned kept = __ballot_sync(allLanes, lane < count && mine != bags.padding);
    for (int j = 0; j < count; j += rowsInFlight) {
      int32_t ids[rowsInFlight];
      for (int u = 0; u < rowsInFlight; ++u) {
        ids[u] = __shfl_sync(allLanes, mine, (j + u) % 32);
        if (j + u < count && kept >> (j + u) & 1) ahead(u, base + j + u, ids[u]);
      }
      for (int u = 0; u < rowsInFlight; ++u) {
        const float w = __shfl_sync(allLanes, weight, (j + u) % 32);
        if (j + u < count && kept >> (j + u) & 1) f(u, base + j + u, ids[u], w);
      }
    }
  }
}

/// How many of the entries [begin, end) are not padding. By a whole warp.
SIMT_DEVICE int64_t rowsIn(const BagsView& bags, int64_t begin, int64_t end) {
  if (bags.padding < 0) return end - begin;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int64_t rows = 0;
  for (int64_t base = begin; base < end; base += 32) {
    const bool kept = base + lane < end && bags.ids[base + lane] != bags.padding;
    rows += __popc(__ballot_sync(allLanes, kept));
  }
  return rows;
}

/// sum = Σ w_i row_i, columns [c, c + V), over the entries [begin, end) that are not padding. By a whole warp; a lane
/// whose columns lie behind the row's end keeps zeros.
template <RowFormat format, int V>
SIMT_DEVICE void sumColumns(const TableView& table, const BagsView& bags, int64_t begin, int64_t end, int64_t c,
                            float (&sum)[V]) {
  const bool inside = c < table.cols;
  float rows[rowsInFlight][V], bias = 0;
  for (int k = 0; k < V; ++k) sum[k] = 0;
  const auto load = [&](int slot, int64_t, int64_t id) {
    if (inside) loadColumns<format>(rowAt(table, id), c, rows[slot]);
  };
  forEntries(bags, begin, end, load, [&](int slot, int64_t, int64_t id, float weight) {
    if (!inside) return;
    if constexpr (quantized<format>) {
      bias = fmaf(weight, table.bias[id], bias);
      weight *= table.scale[id];
    }
    for (int k = 0; k < V; ++k) sum[k] = fmaf(weight, rows[slot][k], sum[k]);
  });
  if constexpr (quantized<format>) {
    for (int k = 0; k < V; ++k) sum[k] += bias;
  }
}

/// Calls f(std::integral_constant) with the number of neighbouring columns that suits a lane: as wide as the rows are
/// whole multiples of, but no wider than spreads a row over the warp.
template <int least = 1, typename F>
void withLaneColumns(int64_t cols, F&& f) {
  if (cols % 4 == 0 && cols > 64) return f(std::integral_constant<int, 4>());
  if (least == 2 || (cols % 2 == 0 && cols > 32)) return f(std::integral_constant<int, 2>());
  if constexpr (least == 1) f(std::integral_constant<int, 1>());
}

/// Calls f(std::integral_constant<RowFormat, ...>, lane columns) for the table's format and width.
template <typename F>
void withRows(const TableView& table, F&& f) {
  switch (table.format) {
#define TOPKNOT_FORMAT(name, least) \
  case RowFormat::name:             \
    return withLaneColumns<least>(  \
        table.cols, [&](auto columns) { f(std::integral_constant<RowFormat, RowFormat::name>(), columns); });
    TOPKNOT_FORMAT(float32, 1)
    TOPKNOT_FORMAT(float16, 1)
    TOPKNOT_FORMAT(bfloat16, 1)
    TOPKNOT_FORMAT(int8, 1)
    TOPKNOT_FORMAT(int4, 2)
#undef TOPKNOT_FORMAT
  }
}

inline Grid warpGrid(int64_t warps) { return {(warps + embeddingWarps - 1) / embeddingWarps}; }

/// Which warp of the grid this thread is in.
SIMT_DEVICE int64_t warpOfGrid() { return int64_t{blockIdx.x} * embeddingWarps + threadIdx.x / 32; }

}  // namespace topknot::cuda
