// How the gradient of a bias is cut into work. A block has a tile of the bias and adds up, in order, the sequences and
// heads that share it. Where tiles are few and heads many, the heads are cut into parts, whose sums are added in order.
#pragma once
#include "cuda/kernels/attention_backward_tiles.cuh"
#include "cuda/kernels/reduce.cuh"

namespace topknot::cuda {

struct BiasCut {
  int64_t rows, columns;  // of a tile
  int64_t rowTiles, columnTiles, tiles, shares, parts, sharesOfPart;

  BiasCut(const AttentionProblem& p, int64_t rows, int64_t columns) : rows(rows), columns(columns) {
    constexpr int64_t wantedBlocks = 512, mostParts = 64;
    rowTiles = (p.bias.queries + rows - 1) / rows, columnTiles = (p.bias.keys + columns - 1) / columns;
    tiles = p.bias.batches * p.bias.heads * rowTiles * columnTiles;
    shares = (p.bias.batches == 1 ? p.batch : 1) * (p.bias.heads == 1 ? p.heads : 1);
    parts = tiles > 0 ? wantedBlocks / tiles : 1;
    if (parts > mostParts) parts = mostParts;
    if (parts > shares) parts = shares;
    if (parts < 1) parts = 1;
    sharesOfPart = (shares + parts - 1) / parts;
  }
};

/// A tile of the bias.
struct BiasTile {
  int64_t batch, head, row, column;

  __device__ BiasTile(const BiasCut& cut, const AttentionProblem& p, int64_t index) {
    column = index % cut.columnTiles * cut.columns, index /= cut.columnTiles;
    row = index % cut.rowTiles * cut.rows, index /= cut.rowTiles;
    head = index % p.bias.heads, batch = index / p.bias.heads;
  }
  /// Calls f(tile of queries, head) for what shares the tile in this part and has queries there that may see its keys.
  template <typename F>
  __device__ void forShares(const BiasCut& cut, const AttentionProblem& p, int64_t part, F&& f) const {
    const int64_t heads = p.bias.heads == 1 ? p.heads : 1, first = part * cut.sharesOfPart;
    const int64_t last = first + cut.sharesOfPart < cut.shares ? first + cut.sharesOfPart : cut.shares;
    for (int64_t share = first; share < last; ++share) {
      const AttentionTile tile = attentionTileAt(p, cut.rows, p.bias.batches == 1 ? share / heads : batch, row);
      if (tile.begin >= tile.end || column >= tile.lastKey || column + cut.columns <= tile.firstKey) continue;
      f(tile, p.bias.heads == 1 ? share % heads : head);
    }
  }
  /// The place of element (i, j) of the tile in `out` [parts, ...bias].
  __device__ void store(const AttentionProblem& p, float* out, int64_t part, int i, int j, float value) const {
    const AttentionBias& bias = p.bias;
    if (row + i >= bias.queries || column + j >= bias.keys) return;
    const int64_t at = ((part * bias.batches + batch) * bias.heads + head) * bias.queries + row + i;
    out[at * bias.keys + column + j] = value;
  }
};

__global__ void __launch_bounds__(elementThreads) noteNotFinite(const float* data, int64_t count, int32_t* notFinite) {
  const int64_t i = threadOfGrid();
  if (i < count && !isFinite(data[i])) atomicOr(notFinite, 1);
}

/// The gradient of the bias, where it is wanted: the sum of the parts that launch(cut, out) makes.
template <typename F>
void queueBiasGradient(Queue& queue, const AttentionBackwardArgs& a, int64_t rows, int64_t columns, F&& launch) {
  const AttentionBias& bias = a.problem.bias;
  const int64_t count = bias.batches * bias.heads * bias.queries * bias.keys;
  if (!a.biasGradient || count == 0) return;
  const BiasCut cut(a.problem, rows, columns);
  float* out = cut.parts == 1 ? a.biasGradient : queue.workspace<float>(cut.parts * count);
  launch(cut, out);
  if (cut.parts > 1) queueReduce<Sum>(queue, {Reduction::sum, out, 1, cut.parts, count, a.biasGradient});
  queue.launch("noteNotFinite", noteNotFinite, elementGrid(count), elementThreads, a.biasGradient, count, a.notFinite);
}

}  // namespace topknot::cuda
