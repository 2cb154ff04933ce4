// Sums over the columns of a tile of pairs, a few queries by as many items as a block has threads: what all scans for
// top-k are made of. Rows are staged in shared memory in elements of four bytes: floats, or four bytes of codes.
#pragma once
#include "backend/topk_args.h"
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

inline constexpr int topkThreads = 256;  // of a block; also the items of a tile
inline constexpr int topkQueries = 4;    // that share one pass over the items
inline constexpr int topkColumns = 16;   // staged at a time

/// Whether all multiples of `bytes` bytes from the start of each row are aligned to `bytes`.
inline bool rowsAligned(const void* data, int64_t rowBytes, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0 && rowBytes % bytes == 0;
}

template <RowFormat format>
SIMT_DEVICE const void* floatRow(const void* data, int64_t i, int64_t cols) {
  return static_cast<const char*>(data) + i * cols * (format == RowFormat::float32 ? 4 : 2);
}

/// Rows of floats; `wide` says that four neighbouring columns can be read at once.
template <RowFormat format>
struct FloatRows {
  using Element = float;
  const void* data;
  int64_t rows, cols;
  bool wide;

  FloatRows(const void* data, int64_t rows, int64_t cols)
      : data(data),
        rows(rows),
        cols(cols),
        wide(format == RowFormat::float32 ? rowsAligned(data, 4 * cols, 16) : rowsAligned(data, 2 * cols, 8)) {}

  __device__ int64_t columns() const { return cols; }
  /// x = columns [c, c + 4) of row i; zeros behind the ends.
  __device__ void load(int64_t i, int64_t c, float (&x)[4]) const {
    for (int e = 0; e < 4; ++e) x[e] = 0;
    if (i >= rows || c >= cols) return;
    const void* row = floatRow<format>(data, i, cols);
    if (wide) return loadColumns<format>(row, c, x);
    for (int e = 0; e < 4 && c + e < cols; ++e) {
      float one[1];
      loadColumns<format>(row, c + e, one);
      x[e] = one[0];
    }
  }
};

/// Rows of bytes, four to an element.
struct ByteRows {
  using Element = uint32_t;
  const uint8_t* data;
  int64_t rows, cols;
  bool wide;

  ByteRows(const uint8_t* data, int64_t rows, int64_t cols)
      : data(data), rows(rows), cols(cols), wide(rowsAligned(data, cols, 16)) {}

  __device__ int64_t columns() const { return (cols + 3) / 4; }
  __device__ void load(int64_t i, int64_t c, uint32_t (&x)[4]) const {
    for (int e = 0; e < 4; ++e) x[e] = 0;
    if (i >= rows || c >= columns()) return;
    const uint8_t* from = data + i * cols + 4 * c;
    if (wide) {
      const Pack<uint32_t, 4> four = *reinterpret_cast<const Pack<uint32_t, 4>*>(from);
      for (int e = 0; e < 4; ++e) x[e] = four.v[e];
      return;
    }
    const int64_t left = cols - 4 * c;
    for (int b = 0; b < 16; ++b) {
      if (b < left) x[b / 4] |= static_cast<uint32_t>(from[b]) << (8 * (b % 4));
    }
  }
};

/// sums[q] = add(... add(add(0, query, item), ...)) over the columns in order, for query firstQuery + q and item
/// firstItem + threadIdx.x, both taken as zeros behind the ends. Called by the whole block; ends with a barrier.
template <typename Sum, int Q, typename Queries, typename Items, typename Add>
SIMT_DEVICE void tileSums(const Queries& queries, const Items& items, int64_t firstQuery, int64_t firstItem,
                          Sum (&sums)[Q], Add&& add) {
  using Element = typename Items::Element;
  constexpr int stride = topkColumns + 1, packs = topkColumns / 4;  // odd: threads' rows start in different banks
  SIMT_SHARED(Element, itemTile, (topkThreads * stride));
  using QueryColumn = Pack<Element, Q>;
  SIMT_SHARED(QueryColumn, queryTile, topkColumns);
  const int thread = static_cast<int>(threadIdx.x);
  for (int q = 0; q < Q; ++q) sums[q] = 0;
  for (int64_t column = 0; column < items.columns(); column += topkColumns) {
    for (int i = thread; i < topkThreads * packs; i += topkThreads) {
      Element x[4];
      items.load(firstItem + i / packs, column + i % packs * 4, x);
      for (int e = 0; e < 4; ++e) itemTile[i / packs * stride + i % packs * 4 + e] = x[e];
    }
    for (int i = thread; i < Q * packs; i += topkThreads) {
      Element x[4];
      queries.load(firstQuery + i / packs, column + i % packs * 4, x);
      for (int e = 0; e < 4; ++e) queryTile[i % packs * 4 + e].v[i / packs] = x[e];
    }
    __syncthreads();
    for (int c = 0; c < topkColumns; ++c) {
      const Element x = itemTile[thread * stride + c];
      const QueryColumn column = queryTile[c];
      for (int q = 0; q < Q; ++q) sums[q] = add(sums[q], column.v[q], x);
    }
    __syncthreads();
  }
}

/// The float product that every kernel of search sums alike, so that equal rows have equal scores everywhere.
struct AddProduct {
  __device__ float operator()(float sum, float query, float item) const { return fmaf(query, item, sum); }
};

/// Calls f(std::integral_constant<RowFormat, ...>) for the type of a matrix.
template <typename F>
void withFloats(FloatType type, F&& f) {
  switch (type) {
    case FloatType::float32:
      return f(std::integral_constant<RowFormat, RowFormat::float32>());
    case FloatType::float16:
      return f(std::integral_constant<RowFormat, RowFormat::float16>());
    case FloatType::bfloat16:
      return f(std::integral_constant<RowFormat, RowFormat::bfloat16>());
  }
}

}  // namespace topknot::cuda
