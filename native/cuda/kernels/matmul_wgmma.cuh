// The matrix product of two matrices of the same 16-bit format on compute capability 9.0a: blocks of 128 x N results,
// which stay on a multiprocessor and take one tile of results after another. One warp group copies the next 64 steps of
// depth of both operands into a ring of stages, two others multiply 64 x N each, straight from there. The producer runs
// ahead into the next tile while the consumers write this one.
//
// The depth of an operand lies across the rows of its tiles or, for what is transposed in memory, down them; wgmma
// reads both. Outside the matrices the copies bring zeros, so no product looks at an edge.
#pragma once
#include <algorithm>

#include "cuda/kernels/matmul_mma.cuh"
#include "cuda/kernels/wgmma_ring.cuh"
#include "cuda/sm90a.h"

namespace topknot::cuda {

template <int N>
struct MatmulWgmma {
  static constexpr int sumStride =
      40;  // of 32 columns on their way out: the pairs of half a warp lie in different banks
  static constexpr int64_t sumBytes = int64_t{4} * WgmmaRing<N>::consumerWarps * 16 * sumStride;
  static constexpr int64_t bytes = WgmmaRing<N>::bytes + sumBytes + swizzleAlignment;
  static_assert(bytes + 2 * WgmmaRing<N>::stages * 8 <= maxDynamicShared90);
};

/// Both operands as tiles, and which of their dimensions of products they have: a shared one has one matrix.
struct MatmulMaps {
  int64_t tileRows, tileColumns, tiles;
  bool aShared, bShared;
};

SIMT_DEVICE MatmulPlace wgmmaPlace(int64_t tile, const MatmulMaps& maps, int N) {
  return {tile / (maps.tileRows * maps.tileColumns), tile / maps.tileColumns % maps.tileRows * 128,
          tile % maps.tileColumns * N};
}

/// Tiles b, b + blocks, b + 2 blocks, ... of all products by block b. aDown: a lies in memory with its depth down the
/// rows; bDown: so does b.
template <RowFormat format, bool aDown, bool bDown, int N>
__global__ void __launch_bounds__(WgmmaRing<N>::threads, 1)
    matmulWgmma(const __grid_constant__ MatmulArgs args, const __grid_constant__ TensorMap aMap,
                const __grid_constant__ TensorMap bMap, MatmulMaps maps) {
#if SIMT_SM90A
  using Ring = WgmmaRing<N>;
  using Shape = MatmulWgmma<N>;
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(Barrier, full, Ring::stages);
  SIMT_SHARED(Barrier, empty, Ring::stages);
  Ring ring{swizzleAligned(memory), full, empty, {}};
  float* const writing = reinterpret_cast<float*>(ring.tiles + Ring::bytes);
  ring.start();
  const int steps = static_cast<int>((args.k + 63) / 64);
  if (threadIdx.x < 128) {
    shrinkRegisters<Ring::few>();
    for (int64_t tile = blockIdx.x; tile < maps.tiles && threadIdx.x == 0; tile += gridDim.x) {
      const MatmulPlace at = wgmmaPlace(tile, maps, N);
      const int row = static_cast<int>(at.row), column = static_cast<int>(at.column);
      const int aProduct = maps.aShared ? 0 : static_cast<int>(at.product);
      const int bProduct = maps.bShared ? 0 : static_cast<int>(at.product);
      for (int depth = 0; depth < 64 * steps; depth += 64) {
        ring.send([&](unsigned char* a, unsigned char* b, Barrier* landed) {
          if constexpr (aDown) {
            for (int i = 0; i < 2; ++i) copyTile(a + i * Ring::boxBytes, aMap, landed, row + 64 * i, depth, aProduct);
          } else {
            copyTile(a, aMap, landed, depth, row, aProduct);
          }
          if constexpr (bDown) {
            for (int i = 0; i < N / 64; ++i) {
              copyTile(b + i * Ring::boxBytes, bMap, landed, column + 64 * i, depth, bProduct);
            }
          } else {
            copyTile(b, bMap, landed, depth, column, bProduct);
          }
        });
      }
    }
  } else {
    growRegisters<Ring::many>();
    const int consumer = static_cast<int>(threadIdx.x) / 128 - 1, warp = static_cast<int>(threadIdx.x) / 32 % 4;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int64_t tile = blockIdx.x; tile < maps.tiles; tile += gridDim.x) {
      float sums[N / 2];
      ring.template multiply<format, aDown, bDown>(sums, steps);
      const MatmulPlace at = wgmmaPlace(tile, maps, N);
      float* const mine = writing + (consumer * 4 + warp) * 16 * Shape::sumStride;
      const int64_t firstRow = at.row + consumer * 64 + warp * 16;
      float* const c = args.c + at.product * args.batch.cStride + firstRow * args.cStride;
      const int left =
          static_cast<int>(args.m - firstRow < 16 ? args.m - firstRow : 16);  // of 16 rows, may be negative
      SIMT_UNROLL
      for (int chunk = 0; chunk < N / 32; ++chunk) {
        SIMT_UNROLL
        for (int i = 0; i < 16; i += 2) {
          const float pair[2] = {sums[chunk * 16 + i], sums[chunk * 16 + i + 1]};
          storePack(pair, mine + wgmmaRow(i) % 16 * Shape::sumStride + wgmmaColumn(i));
        }
        __syncwarp(allLanes);
        const int64_t column = at.column + chunk * 32 + lane;
        SIMT_ROLLED
        for (int r = 0; r < left && column < args.n; ++r) {
          float& out = c[r * args.cStride + column];
          out = finished(args, mine[r * Shape::sumStride + lane], args.beta != 0 ? out : 0.0f, column);
        }
        __syncwarp(allLanes);
      }
    }
  }
#endif
}

/// The distance between the matrices of an operand: 0 where there is one for all products, -1 where they do not lie one
/// distance apart.
inline int64_t matrixDistance(const MatmulBatch& batch, const int64_t* strides) {
  int64_t distance = 0, count = 1;  // of the dimensions from the last one on
  for (int i = batch.rank - 1; i >= 0; --i) {
    if (batch.dims[i] == 1) continue;
    if (count == 1) distance = strides[i];
    else if (strides[i] != count * distance) return -1;
    count *= batch.dims[i];
  }
  return distance;
}

/// Whether these operands, which suit matmulMma, are two tensors with enough tiles for this many multiprocessors.
inline bool suitsWgmma(const MatmulArgs& a, int multiprocessors) {
  const auto fits = [&](const MatmulOperand& x, const int64_t* strides, int64_t together) {
    return x.stride >= together && x.stride < int64_t{1} << 38 && matrixDistance(a.batch, strides) >= 0;
  };
  const int64_t tiles = (a.m + 127) / 128 * ((a.n + 127) / 128) * a.batch.count();
  return a.k > 0 && std::max({a.m, a.n, a.k, a.batch.count()}) <= INT32_MAX - 256 && tiles >= multiprocessors &&
         fits(a.a, a.batch.aStride, a.a.transposed ? a.m : a.k) &&
         fits(a.b, a.batch.bStride, a.b.transposed ? a.k : a.n);
}

/// An operand whose memory has `rows` rows of `columns` numbers, in boxes of 64 columns.
inline TensorMap matmulMap(Queue& queue, const MatmulArgs& a, const MatmulOperand& x, const int64_t* strides,
                           int64_t rows, int64_t columns, int boxRows) {
  const int64_t distance = matrixDistance(a.batch, strides);
  const bool shared = distance == 0;
  return tensorMap(queue, {x.data,
                           2,
                           3,
                           {columns, rows, shared ? 1 : a.batch.count()},
                           {1, x.stride, shared ? x.stride : distance},
                           {64, boxRows, 1}});
}

template <RowFormat format, int N>
void queueMatmulWgmma(Queue& queue, const MatmulArgs& a) {
  void (*const kernels[2][2])(MatmulArgs, TensorMap, TensorMap, MatmulMaps){
      {matmulWgmma<format, false, false, N>, matmulWgmma<format, false, true, N>},
      {matmulWgmma<format, true, false, N>, matmulWgmma<format, true, true, N>}};
  const bool aDown = a.a.transposed, bDown = !a.b.transposed;
  const TensorMap aMap = aDown ? matmulMap(queue, a, a.a, a.batch.aStride, a.k, a.m, 64)
                               : matmulMap(queue, a, a.a, a.batch.aStride, a.m, a.k, 128);
  const TensorMap bMap = bDown ? matmulMap(queue, a, a.b, a.batch.bStride, a.k, a.n, 64)
                               : matmulMap(queue, a, a.b, a.batch.bStride, a.n, a.k, N);
  const int64_t rows = (a.m + 127) / 128, columns = (a.n + N - 1) / N, tiles = rows * columns * a.batch.count();
  queue.launch("matmulWgmma", kernels[aDown][bDown],
               {std::min<int64_t>(tiles, queue.multiprocessors()), 1, MatmulWgmma<N>::bytes, maxDynamicShared90},
               WgmmaRing<N>::threads, a, aMap, bMap,
               MatmulMaps{rows, columns, tiles, matrixDistance(a.batch, a.batch.aStride) == 0,
                          matrixDistance(a.batch, a.batch.bStride) == 0});
}

/// Wide tiles where they fill the device: an element's sum is the same in both.
inline void queueMatmulWgmma(Queue& queue, const MatmulArgs& a) {
  const int64_t wideTiles = (a.m + 127) / 128 * ((a.n + 255) / 256) * a.batch.count();
  const bool wide = wideTiles >= queue.multiprocessors();
  withConstant<RowFormat::float16, RowFormat::bfloat16>(a.a.format, [&](auto format) {
    constexpr RowFormat f = decltype(format)::value;
    if (wide) queueMatmulWgmma<f, 256>(queue, a);
    else queueMatmulWgmma<f, 128>(queue, a);
  });
}

}  // namespace topknot::cuda
