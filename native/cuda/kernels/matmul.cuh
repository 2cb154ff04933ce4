// The matrix product on tensor cores, the CUDA side of cpu/kernels/matmul.cpp: blocks of 64 x 64 results, four warps of
// 32 x 32. float32 operands are taken apart into two tf32 numbers each, and three of the four products are summed,
// which leaves an error of about 2^-21 a product (Ootomo and Yokota 2022); 16-bit operands are tf32 numbers as they
// are. Two operands of one 16-bit format go to matmul_mma.cuh where 16-byte pieces fit them, or to matmul_wgmma.cuh
// where that is asked for. The sums go through shared memory to where bias and activation are applied, once for each
// element.
#pragma once
#include "cuda/kernels/embedding_rows.cuh"
#include "cuda/kernels/matmul_mma.cuh"
#include "cuda/kernels/matmul_wgmma.cuh"

namespace topknot::cuda {

inline constexpr int matmulThreads = 128, matmulTile = 64, matmulDepth = 32;
inline constexpr int matmulStride = matmulDepth + 4;    // the fragments of a warp lie in different banks,
inline constexpr int matmulSumStride = matmulTile + 8;  // those of the sums as well
static_assert(matmulTile * matmulSumStride <= 2 * matmulTile * matmulStride);

template <RowFormat format>
SIMT_DEVICE float operandAt(const void* data, int64_t at) {
  float x[1];
  loadColumns<format>(data, at, x);
  return x[0];
}

/// tile[r][d] = element (row + r, depth + d) of a matrix whose rows or, when transposed, columns lie together; zeros
/// behind its ends. Neighbouring threads read neighbouring elements.
template <RowFormat format>
SIMT_DEVICE void fillTile(float* tile, const void* data, int64_t start, int64_t stride, bool rowsTogether, int64_t row,
                          int64_t rows, int64_t depth, int64_t depths) {
  for (int i = static_cast<int>(threadIdx.x); i < matmulTile * matmulDepth; i += matmulThreads) {
    const int r = rowsTogether ? i / matmulDepth : i % matmulTile;
    const int d = rowsTogether ? i % matmulDepth : i / matmulTile;
    const int64_t at = rowsTogether ? (row + r) * stride + depth + d : (depth + d) * stride + row + r;
    const bool inside = row + r < rows && depth + d < depths;
    tile[r * matmulStride + d] = inside ? operandAt<format>(data, start + at) : 0.0f;
  }
}

/// The tf32 part of x, and what it leaves.
SIMT_DEVICE void splitTf32(float x, uint32_t& high, uint32_t& low) {
  high = toTf32(x);
  low = toTf32(x - __uint_as_float(high));
}

/// Block b: one tile of one product; the tiles of a product follow each other, row by row.
template <RowFormat formatA, RowFormat formatB>
__global__ void __launch_bounds__(matmulThreads, 4)
    matmulTiles(MatmulArgs args, int64_t tileRows, int64_t tileColumns) {
  SIMT_SHARED(float, tileA, (2 * matmulTile * matmulStride));
  float* const tileB = tileA + matmulTile * matmulStride;
  constexpr bool splitA = formatA == RowFormat::float32, splitB = formatB == RowFormat::float32;
  const auto [product, row, column] = matmulPlace(blockIdx.x, tileRows, tileColumns, matmulTile);
  const int64_t startA = args.batch.start(args.batch.aStride, product);
  const int64_t startB = args.batch.start(args.batch.bStride, product);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int group = lane / 4, quad = lane % 4, firstRow = warp / 2 * 32, firstColumn = warp % 2 * 32;
  float sum[2][4][4] = {};
  for (int64_t depth = 0; depth < args.k; depth += matmulDepth) {
    fillTile<formatA>(tileA, args.a.data, startA, args.a.stride, !args.a.transposed, row, args.m, depth, args.k);
    fillTile<formatB>(tileB, args.b.data, startB, args.b.stride, args.b.transposed, column, args.n, depth, args.k);
    __syncthreads();
    SIMT_UNROLL
    for (int d = 0; d < matmulDepth; d += 8) {
      uint32_t high[2][4], low[2][4];
      SIMT_UNROLL
      for (int i = 0; i < 2; ++i) {
        SIMT_UNROLL
        for (int e = 0; e < 4; ++e) {
          const int r = firstRow + 16 * i + group + e % 2 * 8;
          splitTf32(tileA[r * matmulStride + d + quad + e / 2 * 4], high[i][e], low[i][e]);
        }
      }
      SIMT_UNROLL
      for (int j = 0; j < 4; ++j) {
        uint32_t highB[2], lowB[2];
        SIMT_UNROLL
        for (int e = 0; e < 2; ++e) {
          const int c = firstColumn + 8 * j + group;
          splitTf32(tileB[c * matmulStride + d + quad + e * 4], highB[e], lowB[e]);
        }
        SIMT_UNROLL
        for (int i = 0; i < 2; ++i) {
          if constexpr (splitA) mmaTf32(sum[i][j], low[i], highB);
          if constexpr (splitB) mmaTf32(sum[i][j], high[i], lowB);
          mmaTf32(sum[i][j], high[i], highB);
        }
      }
    }
    __syncthreads();
  }
  SIMT_UNROLL
  for (int i = 0; i < 2; ++i) {
    SIMT_UNROLL
    for (int j = 0; j < 4; ++j) {
      SIMT_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int r = firstRow + 16 * i + group + e / 2 * 8, s = firstColumn + 8 * j + quad * 2 + e % 2;
        tileA[r * matmulSumStride + s] = sum[i][j][e];  // over both tiles, which have been read
      }
    }
  }
  __syncthreads();
  finishTile<matmulTile, matmulSumStride, matmulThreads>(args, tileA, args.c + product * args.batch.cStride, row,
                                                         column);
}

inline void queueMatmul(Queue& queue, const MatmulArgs& a) {
  const int64_t rows = (a.m + matmulTile - 1) / matmulTile, columns = (a.n + matmulTile - 1) / matmulTile;
  const Grid grid{rows * columns * a.batch.count()};
  if (grid.x == 0) return;
  if (suitsMma(a)) {
    const bool wgmma = sm90aChosen(queue) && suitsWgmma(a, queue.multiprocessors());
    return wgmma ? queueMatmulWgmma(queue, a) : queueMatmulMma(queue, a);
  }
  withConstant<RowFormat::float32, RowFormat::float16, RowFormat::bfloat16>(a.a.format, [&](auto formatA) {
    withConstant<RowFormat::float32, RowFormat::float16, RowFormat::bfloat16>(a.b.format, [&](auto formatB) {
      queue.launch("matmulTiles", matmulTiles<decltype(formatA)::value, decltype(formatB)::value>, grid, matmulThreads,
                   a, rows, columns);
    });
  });
}

/// The `matmul` slot.
inline Status matmul(const Exec& exec, const MatmulArgs& a) {
  Queue queue(exec);
  queueMatmul(queue, a);
  return queue.status();
}

}  // namespace topknot::cuda
