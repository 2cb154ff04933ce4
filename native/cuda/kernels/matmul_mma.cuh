// The matrix product of two matrices of the same 16-bit format: tiles of T x T results, a warp has T / 2 x 32 of them.
// cp.async fetches the next 64 columns of depth while mma works on these; what is transposed in memory is turned by
// ldmatrix.
#pragma once
#include "backend/matmul_args.h"
#include "cuda/kernels/async_tiles.cuh"
#include "cuda/kernels/elementwise.cuh"

namespace topknot::cuda {

/// f(alpha sum + beta before + bias) of an element in this column.
SIMT_DEVICE float finished(const MatmulArgs& args, float sum, float before, int64_t column) {
  float value = args.alpha * sum;
  if (args.beta != 0) value = fmaf(args.beta, before, value);
  if (args.bias) value += args.bias[column];
  return apply(args.activation, value);
}

/// c = f(alpha sums + beta c + bias) for a T x T tile of sums in shared memory, whose rows are `stride` apart.
template <int T, int stride, int threads>
SIMT_DEVICE void finishTile(const MatmulArgs& args, const float* sums, float* c, int64_t row, int64_t column) {
  for (int i = static_cast<int>(threadIdx.x); i < T * T; i += threads) {
    const int64_t r = row + i / T, s = column + i % T;
    if (r >= args.m || s >= args.n) continue;
    float& out = c[r * args.cStride + s];
    out = finished(args, sums[i / T * stride + i % T], args.beta != 0 ? out : 0.0f, s);
  }
}

/// One tile of a batch of products; the tiles of a product follow each other, row by row.
struct MatmulPlace {
  int64_t product, row, column;
};

SIMT_DEVICE MatmulPlace matmulPlace(int64_t index, int64_t tileRows, int64_t tileColumns, int T) {
  return {index / (tileRows * tileColumns), index / tileColumns % tileRows * T, index % tileColumns * T};
}

template <int T>
struct MatmulMma {
  static constexpr int threads = 2 * T, depth = 64, sumStride = T + 8;
  static constexpr int blocks =
      T == 64 ? 4 : 1;  // on a multiprocessor at least: asking for no more leaves the registers
  static constexpr int64_t stageBytes = int64_t{2} * 2 * T * depth, sumBytes = int64_t{4} * T * sumStride;
  static constexpr int64_t bytes = 2 * stageBytes > sumBytes ? 2 * stageBytes : sumBytes;
};

/// Block b: one tile of one product. aDown: a lies in memory with its depth down the rows; bDown: so does b.
template <RowFormat format, bool aDown, bool bDown, int T>
__global__ void __launch_bounds__(MatmulMma<T>::threads, MatmulMma<T>::blocks)
    matmulMma(MatmulArgs args, int64_t tileRows, int64_t tileColumns) {
  SIMT_DYNAMIC_SHARED(memory);
  constexpr int K = MatmulMma<T>::depth, threads = MatmulMma<T>::threads, rowTiles = T / 32;
  const MatmulPlace place = matmulPlace(blockIdx.x, tileRows, tileColumns, T);
  uint16_t* stages = reinterpret_cast<uint16_t*>(memory);
  const uint16_t* a = static_cast<const uint16_t*>(args.a.data) + args.batch.start(args.batch.aStride, place.product);
  const uint16_t* b = static_cast<const uint16_t*>(args.b.data) + args.batch.start(args.batch.bStride, place.product);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int firstRow = warp / (T / 32) * (T / 2), firstColumn = warp % (T / 32) * 32;
  float sum[rowTiles][4][4] = {};
  pipelined((args.k + K - 1) / K,
            [&](int step) {
              uint16_t* partA = stages + step % 2 * (2 * T * K);
              uint16_t* partB = partA + T * K;
              const int64_t d = int64_t{step} * K;
              if constexpr (aDown) fetchTile<K, T, threads>(partA, a, args.a.stride, d, args.k, place.row, args.m);
              else fetchTile<T, K, threads>(partA, a, args.a.stride, place.row, args.m, d, args.k);
              if constexpr (bDown) fetchTile<K, T, threads>(partB, b, args.b.stride, d, args.k, place.column, args.n);
              else fetchTile<T, K, threads>(partB, b, args.b.stride, place.column, args.n, d, args.k);
            },
            [&](int step) {
              const uint16_t* partA = stages + step % 2 * (2 * T * K);
              const uint16_t* partB = partA + T * K;
              SIMT_UNROLL
              for (int d = 0; d < K; d += 16) {
                uint32_t left[rowTiles][4];
                SIMT_UNROLL
                for (int i = 0; i < rowTiles; ++i) {
                  const int r = firstRow + 16 * i;
                  if constexpr (aDown) {
                    const int down = d + lane % 8 + lane / 16 * 8;
                    loadMatricesTransposed(left[i], piece<T>(partA, down, r / 8 + lane / 8 % 2));
                  } else {
                    loadMatrices(left[i], piece<K>(partA, r + lane % 16, d / 8 + lane / 16));
                  }
                }
                SIMT_UNROLL
                for (int j = 0; j < 4; j += 2) {
                  const int c = firstColumn + 8 * j;
                  uint32_t right[4];
                  if constexpr (bDown) loadMatricesTransposed(right, piece<T>(partB, d + lane % 16, c / 8 + lane / 16));
                  else loadMatrices(right, piece<K>(partB, c + lane / 16 * 8 + lane % 8, d / 8 + lane / 8 % 2));
                  SIMT_UNROLL
                  for (int i = 0; i < rowTiles; ++i) {
                    SIMT_UNROLL
                    for (int h = 0; h < 2; ++h) {
                      const uint32_t half[2] = {right[2 * h], right[2 * h + 1]};
                      if constexpr (format == RowFormat::float16) mmaF16(sum[i][j + h], left[i], half);
                      else mmaBf16(sum[i][j + h], left[i], half);
                    }
                  }
                }
              }
            });
  float* sums = reinterpret_cast<float*>(memory);  // over the stages, which have been read
  SIMT_UNROLL
  for (int i = 0; i < rowTiles; ++i) {
    SIMT_UNROLL
    for (int j = 0; j < 4; ++j) {
      SIMT_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int r = firstRow + 16 * i + lane / 4 + e / 2 * 8, s = firstColumn + 8 * j + lane % 4 * 2 + e % 2;
        sums[r * MatmulMma<T>::sumStride + s] = sum[i][j][e];
      }
    }
  }
  __syncthreads();
  finishTile<T, MatmulMma<T>::sumStride, threads>(args, sums, args.c + place.product * args.batch.cStride, place.row,
                                                  place.column);
}

/// Whether 16-byte pieces of an operand, `together` numbers of which lie side by side, are aligned and whole.
inline bool inPieces(const MatmulOperand& x, const MatmulBatch& batch, const int64_t* strides, int64_t together) {
  for (int i = 0; i < batch.rank; ++i) {
    if (strides[i] % 8 != 0) return false;
  }
  return aligned16({x.data}) && x.stride % 8 == 0 && together % 8 == 0;
}

inline bool suitsMma(const MatmulArgs& a) {
  return a.a.format == a.b.format && a.a.format != RowFormat::float32 &&
         inPieces(a.a, a.batch, a.batch.aStride, a.a.transposed ? a.m : a.k) &&
         inPieces(a.b, a.batch, a.batch.bStride, a.b.transposed ? a.k : a.n);
}

template <RowFormat format, int T>
void queueMatmulMma(Queue& queue, const MatmulArgs& a) {
  const int64_t rows = (a.m + T - 1) / T, columns = (a.n + T - 1) / T;
  void (*const kernels[2][2])(MatmulArgs, int64_t, int64_t){
      {matmulMma<format, false, false, T>, matmulMma<format, false, true, T>},
      {matmulMma<format, true, false, T>, matmulMma<format, true, true, T>}};
  queue.launch("matmulMma", kernels[a.a.transposed][!a.b.transposed],
               {rows * columns * a.batch.count(), 1, MatmulMma<T>::bytes}, MatmulMma<T>::threads, a, rows, columns);
}

/// Large tiles where they fill the device: an element's sum is the same in both.
inline void queueMatmulMma(Queue& queue, const MatmulArgs& a) {
  const int64_t largeTiles = (a.m + 127) / 128 * ((a.n + 127) / 128) * a.batch.count();
  const bool large = largeTiles >= queue.multiprocessors();
  withConstant<RowFormat::float16, RowFormat::bfloat16>(a.a.format, [&](auto format) {
    constexpr RowFormat f = decltype(format)::value;
    if (large) queueMatmulMma<f, 128>(queue, a);
    else queueMatmulMma<f, 64>(queue, a);
  });
}

}  // namespace topknot::cuda
