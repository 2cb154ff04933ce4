// Tiles of 16-bit numbers in shared memory: copied while a block works on what came before, read by ldmatrix.
#pragma once
#include "cuda/kernels/team.cuh"
#include "cuda/ptx.h"

namespace topknot::cuda {

/// A tile of D columns in shared memory. The 16-byte pieces of a row are permuted, so that the same piece of eight rows
/// that follow each other lies in different banks.
template <int D, typename T>
SIMT_DEVICE T* piece(T* tile, int row, int at) {
  const int key = D >= 64 ? row & 7 : row >> 1 & 3;
  return tile + row * D + (at ^ key) * 8;
}

/// Begins to copy R rows of C columns, from (row, column) on, into a tile; what lies behind `rows` and `columns`, a
/// multiple of 8, becomes zero.
template <int R, int C, int threads>
SIMT_DEVICE void fetchTile(uint16_t* tile, const uint16_t* data, int64_t stride, int64_t row, int64_t rows,
                           int64_t column, int64_t columns) {
  for (int i = static_cast<int>(threadIdx.x); i < R * (C / 8); i += threads) {
    const int r = i / (C / 8), at = i % (C / 8);
    const bool valid = row + r < rows && column + at * 8 < columns;
    copyAsync(piece<C>(tile, r, at), valid ? data + (row + r) * stride + column + at * 8 : data, valid);
  }
}

/// Calls work(step) for every step, with what fetch(step) began to copy, and what was begun before this call, in place.
/// Two steps are in memory at a time. By a whole block, all threads alike.
template <typename Fetch, typename Work>
SIMT_DEVICE void pipelined(int steps, Fetch&& fetch, Work&& work) {
  if (steps > 0) fetch(0);
  commitCopies();
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) {
      fetch(step + 1);
      commitCopies();
      waitForCopies<1>();
    } else {
      waitForCopies<0>();
    }
    __syncthreads();
    work(step);
    __syncthreads();  // before the next copies take this step's memory
  }
  waitForCopies<0>();
}

}  // namespace topknot::cuda
