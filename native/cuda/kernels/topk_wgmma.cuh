// The passes of topk_tensor.cuh on compute capability 9.0a: tiles of 128 queries by 256 items, scored by wgmma from a
// ring of stages (wgmma_ring.cuh). A warp looks at the sums of its 16 queries, 32 items at a time. What reaches its
// query's threshold goes to a list in shared memory, by ballots, and from there, lane by lane, to its filter and sink.
//
// float32 is read as tf32, cut off rather than rounded: a product errs by 2^-9 of itself at most. Both operands of
// wgmma have one format, so for 16-bit items the queries are rounded to it: by 2^-11 for float16, which are first
// multiplied by a power of two each, so that none leaves the format's range; by 2^-8 for bfloat16.
#pragma once
#include "cuda/kernels/topk_tensor_pass.cuh"
#include "cuda/kernels/wgmma_ring.cuh"
#include "cuda/sm90a.h"

namespace topknot::cuda {

struct TopkWgmma {
  static constexpr int queries = 128, items = 256, group = 32;  // of the items of a tile
  using Ring = WgmmaRing<items>;
  /// A pair, as row (0 to 15) and column (0 to 31) of those that a warp looks at.
  struct Pair {
    float score;
    int at;
  };
  static constexpr int64_t listBytes = int64_t{16} * group * sizeof(Pair);
  static constexpr int64_t bytes = Ring::bytes + Ring::consumerWarps * listBytes + swizzleAlignment;
  static_assert(bytes + 2 * Ring::stages * 8 <= maxDynamicShared90);
};

/// How much a product of these may err by the formats of its factors, as a share of itself, and a little more.
template <RowFormat format>
inline constexpr double wgmmaRounding = format == RowFormat::float16    ? 0x1.02p-11
                                        : format == RowFormat::bfloat16 ? 0x1.02p-8
                                                                        : 0x1.02p-9;

/// The queries of a chunk in 16 bits, times a power of two for float16; unscale[q] undoes that. A warp for each.
template <RowFormat format>
__global__ void __launch_bounds__(topkThreads)
    topkHalfQueries(MatrixView queries, QueryChunk chunk, uint16_t* halves, float* unscale) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t local = (int64_t{blockIdx.x} * topkThreads + threadIdx.x) / 32, query = chunk.begin + local;
  const bool inside = query < chunk.end;
  const float* row = queries.data + (inside ? query : 0) * queries.cols;
  unsigned scale = 127, most = 0;  // bits of the largest size; NaN is above all
  for (int64_t c = lane; c < queries.cols; c += 32) {
    const unsigned size = __float_as_uint(row[c]) & 0x7fffffffu;
    most = size > most ? size : most;
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    const unsigned other = __shfl_xor_sync(allLanes, most, distance);
    most = other > most ? other : most;
  }
  // The largest becomes 2^14 to 2^15; nothing is done about zero and what is not finite.
  const unsigned exponent = most >> 23;
  if (format == RowFormat::float16 && most != 0 && exponent != 255) scale = exponent < 15 ? 253 : 268 - exponent;
  if (!inside) return;
  const float factor = __uint_as_float(scale << 23);
  for (int64_t c = lane; c < queries.cols; c += 32) {
    const float x = row[c] * factor;
    halves[local * queries.cols + c] = format == RowFormat::float16 ? toFloat16(x).bits : toBFloat16(x).bits;
  }
  if (lane == 0) unscale[local] = __uint_as_float((254 - scale) << 23);
}

/// Tiles b, b + blocks, ... by block b; those of the same items are neighbours. unscale may be null.
template <RowFormat format, typename Sink>
__global__ void __launch_bounds__(TopkWgmma::Ring::threads, 1)
    topkWgmma(const __grid_constant__ TensorPass<format> p, const __grid_constant__ Sink sink,
              const __grid_constant__ TensorMap queryMap, const __grid_constant__ TensorMap itemMap,
              const float* unscale, int64_t queryTiles, int64_t tiles) {
#if SIMT_SM90A
  using Shape = TopkWgmma;
  using Ring = Shape::Ring;
  constexpr int depth = format == RowFormat::float32 ? 32 : 64;
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(Barrier, full, Ring::stages);
  SIMT_SHARED(Barrier, empty, Ring::stages);
  Ring ring{swizzleAligned(memory), full, empty, {}};
  ring.start();
  const int steps = static_cast<int>((p.pairs.items.cols + depth - 1) / depth);
  const auto firstPlace = [&](int64_t tile) { return tile / queryTiles * Shape::items; };
  const auto denied = [&](int64_t tile) {
    return p.step == 1 && tileIsDenied(p.filter, firstPlace(tile), Shape::items, p.pairs.items.rows);
  };
  if (threadIdx.x < 128) {
    shrinkRegisters<Ring::few>();
    for (int64_t tile = blockIdx.x; tile < tiles && threadIdx.x == 0; tile += gridDim.x) {
      if (denied(tile)) continue;
      const int query = static_cast<int>(tile % queryTiles * Shape::queries),
                place = static_cast<int>(firstPlace(tile));
      for (int step = 0; step < steps; ++step) {
        ring.send([&](unsigned char* a, unsigned char* b, Barrier* landed) {
          copyTile(a, queryMap, landed, step * depth, query);
          copyTile(b, itemMap, landed, step * depth, place);
        });
      }
    }
  } else {
    growRegisters<Ring::many>();
    const int warp = static_cast<int>(threadIdx.x) / 32 - 4, lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t count = p.chunk.end - p.chunk.begin;
    auto* const list =
        reinterpret_cast<Shape::Pair*>(ring.tiles + Ring::bytes + static_cast<int>(Shape::listBytes) * warp);
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      if (denied(tile)) continue;
      float sums[Shape::items / 2];
      ring.template multiply<format, false, false>(sums, steps);
      const int64_t firstQuery = tile % queryTiles * Shape::queries + warp * 16, first = firstPlace(tile);
      // A lane has sums of two rows. No score is below NaN, with which all pairs go to the list.
      float least[2], factor[2];
      SIMT_UNROLL
      for (int h = 0; h < 2; ++h) {
        const int64_t local = firstQuery + lane / 4 + 8 * h;
        const bool inside = local < count;
        const bool tested = p.pairs.metric == Metric::innerProduct;
        least[h] = inside && tested ? scoreOf(sink.least(local)) : __uint_as_float(0x7fc00000u);
        factor[h] = inside && unscale ? unscale[local] : 1.0f;
      }
      SIMT_UNROLL
      for (int g = 0; g < Shape::items / Shape::group; ++g) {
        int listed = 0;
        SIMT_UNROLL
        for (int i = 0; i < Shape::group / 2; ++i) {
          const int h = i / 2 % 2;
          const float score = sums[g * (Shape::group / 2) + i] * factor[h];
          const bool good = !(score < least[h]);
          const unsigned all = __ballot_sync(allLanes, good);
          if (all == 0) continue;
          const int before = __popc(all & ((1u << lane) - 1));
          if (good) list[listed + before] = {score, (lane / 4 + 8 * h) * Shape::group + wgmmaColumn(i)};
          listed += __popc(all);
        }
        __syncwarp(allLanes);
        SIMT_ROLLED
        for (int j = lane; j < listed; j += 32) {
          const Shape::Pair pair = list[j];
          const int64_t local = firstQuery + pair.at / Shape::group;
          const int64_t place = first + g * Shape::group + pair.at % Shape::group, item = place * p.step;
          if (local >= count || place >= p.count) continue;
          const int64_t query = p.chunk.begin + local;
          const Key key =
              keyOf(rankedScore(p.pairs.metric, p.pairs.queryNorms, p.pairs.itemNorms, query, item, pair.score), item);
          if (key < sink.least(local)) continue;
          // The filter reads memory: ask it only about pairs that would be kept.
          sink.take(local, place, admits(p.filter, query, item) ? key : noKey);
        }
        __syncwarp(allLanes);
      }
    }
  }
#endif
}

/// Whether queries and items can be copied as tiles.
inline bool suitsTopkWgmma(const TopkArgs& a) {
  const int64_t bytes = a.items.type == FloatType::float32 ? 4 : 2;
  return a.items.cols > 0 && rowsAligned(a.queries.data, 4 * a.queries.cols, 16) &&
         rowsAligned(a.items.data, bytes * a.items.cols, 16) && a.items.rows * a.items.cols < int64_t{1} << 36;
}

/// The passes over the queries of one chunk.
template <RowFormat format>
class TopkWgmmaPass {
 public:
  /// Memory for chunks of at most so many queries.
  void prepare(Queue& queue, const TopkArgs& a, int64_t most) {
    if constexpr (format == RowFormat::float32) return;
    halves_ = queue.workspace<uint16_t>(most * a.queries.cols);
    unscale_ = queue.workspace<float>(most);
  }
  void start(Queue& queue, const TopkArgs& a, QueryChunk chunk) {
    const int64_t count = chunk.end - chunk.begin, cols = a.queries.cols;
    if constexpr (format == RowFormat::float32) {
      queries_ = tensorMap(queue, matrixTiles(a.queries.data + chunk.begin * cols, 4, count, cols, cols, 128));
    } else {
      queue.launch("topkHalfQueries", topkHalfQueries<format>, {ceilDiv(count * 32, topkThreads)}, topkThreads,
                   a.queries, chunk, halves_, unscale_);
      queries_ = tensorMap(queue, matrixTiles(halves_, 2, count, cols, cols, 128));
    }
  }
  template <typename Sink>
  void run(Queue& queue, const TensorPass<format>& pass, Sink sink) {
    const int64_t cols = pass.pairs.items.cols, queries = pass.chunk.end - pass.chunk.begin;
    const int64_t queryTiles = ceilDiv(queries, TopkWgmma::queries);
    const int64_t tiles = queryTiles * ceilDiv(pass.count, TopkWgmma::items);
    const TensorMap items = tensorMap(queue, matrixTiles(pass.pairs.items.data, format == RowFormat::float32 ? 4 : 2,
                                                         pass.count, cols, pass.step * cols, TopkWgmma::items));
    const int64_t blocks = queue.multiprocessors();
    queue.launch("topkWgmma", topkWgmma<format, Sink>,
                 {tiles < blocks ? tiles : blocks, 1, TopkWgmma::bytes, maxDynamicShared90}, TopkWgmma::Ring::threads,
                 pass, sink, queries_, items, unscale_, queryTiles, tiles);
  }

 private:
  uint16_t* halves_ = nullptr;
  float* unscale_ = nullptr;
  TensorMap queries_{};
};

}  // namespace topknot::cuda
