// A matrix into another, the CUDA side of cpu/kernels/copy_matrix.cpp: a block has a tile of 32 x 32, which goes
// through shared memory when it is turned, so that reads and writes both run along rows.
#pragma once
#include "backend/copy_args.h"
#include "cuda/simt.h"

namespace topknot::cuda {

inline constexpr int copyThreads = 256, copyTile = 32, copyStep = copyThreads / copyTile;

/// Block b: one tile; the tiles of a row of tiles follow each other.
__global__ void __launch_bounds__(copyThreads) copyTiles(CopyMatrixArgs a, int64_t tileColumns) {
  SIMT_SHARED(float, turned, (copyTile * (copyTile + 1)));  // a column more, so that columns lie in different banks
  const int64_t firstRow = blockIdx.x / tileColumns * copyTile, firstCol = blockIdx.x % tileColumns * copyTile;
  const int x = static_cast<int>(threadIdx.x) % copyTile, y = static_cast<int>(threadIdx.x) / copyTile;
  if (a.transposed) {
    for (int i = y; i < copyTile; i += copyStep) {
      const int64_t row = firstRow + x, col = firstCol + i;
      if (row < a.rows && col < a.cols) turned[i * (copyTile + 1) + x] = a.from[col * a.fromStride + row];
    }
  }
  __syncthreads();
  for (int i = y; i < copyTile; i += copyStep) {
    const int64_t row = firstRow + i, col = firstCol + x;
    if (row >= a.rows || col >= a.cols) continue;
    const float number = a.transposed ? turned[x * (copyTile + 1) + i] : a.from[row * a.fromStride + col];
    a.to[row * a.toStride + col] = a.scale * number;
  }
}

/// The `copyMatrix` slot.
inline Status copyMatrix(const Exec& exec, const CopyMatrixArgs& a) {
  Queue queue(exec);
  if (a.rows == 0 || a.cols == 0) return queue.status();
  const int64_t tileRows = (a.rows + copyTile - 1) / copyTile, tileColumns = (a.cols + copyTile - 1) / copyTile;
  queue.launch("copyTiles", copyTiles, {tileRows * tileColumns}, copyThreads, a, tileColumns);
  return queue.status();
}

}  // namespace topknot::cuda
