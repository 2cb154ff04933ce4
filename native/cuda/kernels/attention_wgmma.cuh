// Attention forward for compute capability 9.0a, bfloat16 (FlashAttention-3: Shah et al. 2024, without its overlap
// inside a warpgroup). A block has 64 queries of a head for each of its two or three consumer warpgroups; one thread of
// another copies blocks of 128 keys and their values into a ring of tiles, keys and values in turn. Scores come from
// shared memory; their weights stay in registers, where the second product takes them. While one warpgroup makes
// weights, the products of the others keep the tensor cores busy.
#pragma once
#include <algorithm>

#include "cuda/kernels/attention_mma.cuh"
#include "cuda/ptx90_wgmma.h"
#include "cuda/sm90a.h"

namespace topknot::cuda {

/// The shapes of a block for heads of up to D numbers; `adjusted`: with a key mask or a bias. What a thread of the
/// largest heads, or with masks and biases on their way, holds does not fit the registers that three consumers could
/// have.
template <int D, bool adjusted>
struct WgmmaAttention {
  static constexpr int consumers = adjusted || D > 96 ? 2 : 3, queries = 64, rows = consumers * queries, keys = 128;
  static constexpr int producerRegisters = consumers == 2 ? 24 : 32;
  static constexpr int consumerRegisters = consumers == 2 ? 240 : 160;
  static constexpr int threads = 128 * (1 + consumers);
  static constexpr int boxes = (D + 63) / 64;  // of 64 columns, behind each other
  static constexpr int queryBox = 128 * queries, queryBytes = boxes * queryBox;
  static constexpr int keyBox = 128 * keys, keyBytes = boxes * keyBox;
  static constexpr int stages = boxes == 1 ? 8 : 4;  // tiles of keys or of values
  static constexpr int64_t shared = int64_t{consumers} * queryBytes + int64_t{stages} * keyBytes + swizzleAlignment;
  static_assert(shared + 1024 <= maxDynamicShared90);  // beside the barriers
};

/// Keys [first, last), or queries.
struct KeyRange {
  int first, last;
};

/// What [first, last) has of `count` rows.
SIMT_DEVICE KeyRange rangeOf(int64_t first, int64_t last, int64_t count) {
  if (last > count) last = count;
  if (last < 0) last = 0;
  if (first < 0) first = 0;
  if (first > last) first = last;
  return {static_cast<int>(first), static_cast<int>(last)};
}

/// The keys that query i of a sequence may see, key mask apart.
SIMT_DEVICE KeyRange keysSeen(const AttentionProblem& p, int i) {
  const int64_t place = i + p.keys - p.queries;
  return rangeOf(place - p.left, place + p.right + 1, p.keys);
}

/// By one thread: copies the queries of `consumers` warpgroups, then keys and values of all blocks from key `first` on.
template <typename Shape>
SIMT_DEVICE void sendTiles(const AttentionTile& tile, int head, int kvHead, int consumers, int first,
                           const TensorMap& queryMap, const TensorMap& keyMap, const TensorMap& valueMap,
                           unsigned char* tiles, Barrier* queriesFull, Barrier* full, Barrier* empty) {
  const int b = static_cast<int>(tile.b), begin = static_cast<int>(tile.begin), last = static_cast<int>(tile.lastKey);
  arriveExpecting(queriesFull, consumers * Shape::queryBytes);
  for (int i = 0; i < consumers * Shape::boxes; ++i) {
    copyTile(tiles + i * Shape::queryBox, queryMap, queriesFull, i % Shape::boxes * 64,
             begin + i / Shape::boxes * Shape::queries, head, b);
  }
  unsigned char* ring = tiles + Shape::consumers * Shape::queryBytes;
  RingPlace<Shape::stages> place;
  for (int j = first; j < last; j += Shape::keys) {
    for (int values = 0; values < 2; ++values, place.next()) {
      waitPhase(&empty[place.stage], place.parity ^ 1);
      arriveExpecting(&full[place.stage], Shape::keyBytes);
      for (int box = 0; box < Shape::boxes; ++box) {
        copyTile(ring + place.stage * Shape::keyBytes + box * Shape::keyBox, values ? valueMap : keyMap,
                 &full[place.stage], box * 64, j, kvHead, b);
      }
    }
  }
}

/// Writes the first `count` of a warpgroup's 64 rows of sums, times a factor for each of a thread's two, to rows of
/// `dims` numbers: through a tile of its own in shared memory, that they may go out in whole pieces of 16 bytes.
/// Returns whether what this thread has of them is finite.
template <int D>
SIMT_DEVICE bool storeRows(unsigned char* tile, const float (&sums)[D / 2], const float (&factor)[2], int count,
                           uint16_t* to, int64_t stride, int dims) {
  constexpr int box = 64 * 128;
  const auto place = [tile](int row, int piece) {
    return tile + piece / 8 * box + row * 128 + ((piece % 8) ^ (row % 8)) * 16;
  };
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32 % 4;
  bool finite = true;
  SIMT_UNROLL
  for (int i = 0; i < D / 2; i += 2) {
    const int row = wgmmaRow(i), column = wgmmaColumn(i);
    const float x = sums[i] * factor[i / 2 % 2], y = sums[i + 1] * factor[i / 2 % 2];
    finite = finite && (row >= count || (isFinite(x) && isFinite(y)));
    *reinterpret_cast<uint32_t*>(place(row, column / 8) + column % 8 * 2) = packBf16(x, y);
  }
  __syncwarp(allLanes);  // a warp writes the rows that it has
  SIMT_UNROLL
  for (int i = lane; i < 16 * (D / 8); i += 32) {
    const int row = warp * 16 + i / (D / 8), piece = i % (D / 8);
    if (row >= count || piece * 8 >= dims) continue;
    *reinterpret_cast<uint4*>(to + row * stride + piece * 8) = *reinterpret_cast<const uint4*>(place(row, piece));
  }
  return finite;
}

/// Block (t, h): tile t of head h.
template <int D, bool adjusted>
__global__ void __launch_bounds__(WgmmaAttention<D, adjusted>::threads, 1)
    attentionWgmma(AttentionArgs a, int64_t tiles, const __grid_constant__ TensorMap queryMap,
                   const __grid_constant__ TensorMap keyMap, const __grid_constant__ TensorMap valueMap) {
#if SIMT_SM90A
  using Shape = WgmmaAttention<D, adjusted>;
  constexpr int keys = Shape::keys;
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(Barrier, queriesFull, 1);
  SIMT_SHARED(Barrier, full, Shape::stages);
  SIMT_SHARED(Barrier, empty, Shape::stages);
  unsigned char* shared = swizzleAligned(memory);
  const AttentionProblem& p = a.problem;
  const AttentionTile tile = attentionTile(p, Shape::rows, blockIdx.x, tiles);
  const int head = static_cast<int>(blockIdx.y), kvHead = head / static_cast<int>(p.heads / p.kvHeads);
  const int consumers = static_cast<int>(tile.end - tile.begin + Shape::queries - 1) / Shape::queries;
  const int firstBlock = static_cast<int>(tile.firstKey) / keys * keys;
  if (threadIdx.x == 0) {
    initBarrier(queriesFull, 1);
    for (int s = 0; s < Shape::stages; ++s) {
      initBarrier(&full[s], 1);
      initBarrier(&empty[s], 4 * consumers);
    }
    fenceBarriers();
  }
  __syncthreads();  // the last one: producer and consumers part

  const int consumer = static_cast<int>(threadIdx.x) / 128 - 1;
  if (consumer < 0) {
    shrinkRegisters<Shape::producerRegisters>();
    if (threadIdx.x == 0) {
      sendTiles<Shape>(tile, head, kvHead, consumers, firstBlock, queryMap, keyMap, valueMap, shared, queriesFull, full,
                       empty);
    }
    return;
  }
  growRegisters<Shape::consumerRegisters>();
  if (consumer >= consumers) return;  // the sequence ends before its queries
  const int lane = static_cast<int>(threadIdx.x) % 32;
  unsigned char* queries = shared + consumer * Shape::queryBytes;
  const unsigned char* ring = shared + Shape::consumers * Shape::queryBytes;
  // Registers are scarce: what stays in them through the loop is of 32 bits.
  const int b = static_cast<int>(tile.b), lastKey = static_cast<int>(tile.lastKey);
  const int begin = static_cast<int>(tile.begin) + consumer * Shape::queries;
  const int end = begin + Shape::queries < p.queries ? begin + Shape::queries : static_cast<int>(p.queries);
  // Some query of this warpgroup sees keys in [some.first, some.last); blocks within `all` need no mask.
  const KeyRange low = keysSeen(p, begin), high = keysSeen(p, end - 1);
  const KeyRange some{low.first, high.last}, all{high.first, low.last};
  const float scale = p.scale * log2e, unit = adjusted ? 1.0f : scale;  // of scores, to base 2

  RingPlace<Shape::stages> place;
  const auto giveBack = [&] {
    __syncwarp(allLanes);
    if (lane == 0) arrive(&empty[place.stage]);
    place.next();
  };
  const auto pass = [&] {  // keys and values that only other warpgroups see
    for (int i = 0; i < 2; ++i) {
      waitPhase(&full[place.stage], place.parity);
      giveBack();
    }
  };
  float out[D / 2] = {}, score[keys / 2];
  OnlineSoftmax softmax[2];
  for (OnlineSoftmax& s : softmax) s.start();
  waitPhase(queriesFull, 0);

  int j = firstBlock;
  for (; j < lastKey && j + keys <= some.first; j += keys) pass();
  for (; j < some.last; j += keys) {
    waitPhase(&full[place.stage], place.parity);
    const unsigned char* keyTile = ring + place.stage * Shape::keyBytes;
    fenceWgmma(score);
    SIMT_UNROLL
    for (int d = 0; d < D / 16; ++d) {
      wgmma<RowFormat::bfloat16>(score, advance(acrossTile(queries + d / 4 * Shape::queryBox), d % 4 * 32),
                                 advance(acrossTile(keyTile + d / 4 * Shape::keyBox), d % 4 * 32), d > 0);
    }
    commitWgmma();
    waitForWgmma<0>(score);
    giveBack();

    if (adjusted || j < all.first || j + keys > all.last) {
      const int row = begin + wgmmaRow(0);
      const KeyRange seen[2] = {keysSeen(p, row), keysSeen(p, row + 8)};
      const uint8_t* mask = p.maskOf(b);
      const float* bias = p.bias.of(b, head);
      SIMT_UNROLL
      for (int i = 0; i < keys / 2; ++i) {
        const int r = i / 2 % 2, key = j + wgmmaColumn(i);
        const bool sees = key >= seen[r].first && key < seen[r].last;
        if constexpr (adjusted) {
          const int query = row + 8 * r;
          if (!sees || query >= end || (mask && !mask[key])) score[i] = minusInfinity();
          else score[i] = bias ? fmaf(score[i], scale, bias[query * p.bias.keys + key] * log2e) : score[i] * scale;
        } else if (!sees) {
          score[i] = minusInfinity();
        }
      }
    }

    float most[2] = {minusInfinity(), minusInfinity()}, factor[2], offset[2];
    SIMT_UNROLL
    for (int i = 0; i < keys / 2; ++i) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], score[i]);
    SIMT_UNROLL
    for (int r = 0; r < 2; ++r) {
      for (int distance = 1; distance < 4; distance *= 2) {
        most[r] = fmaxf(most[r], __shfl_xor_sync(allLanes, most[r], distance));
      }
      factor[r] = softmax[r].rescale(most[r] * unit);
      offset[r] = softmax[r].largest == minusInfinity() ? 0.0f : softmax[r].largest;
    }
    uint32_t weight[keys / 16][4];  // the left operand of eight steps
    SIMT_UNROLL
    for (int i = 0; i < keys / 2; i += 2) {
      const int r = i / 2 % 2;
      const float x = exp2Fast(fmaf(score[i], unit, -offset[r])), y = exp2Fast(fmaf(score[i + 1], unit, -offset[r]));
      softmax[r].sum += x + y;
      weight[i / 8][i / 2 % 4] = packBf16(x, y);
    }
    SIMT_UNROLL
    for (int i = 0; i < D / 2; ++i) out[i] *= factor[i / 2 % 2];

    waitPhase(&full[place.stage], place.parity);
    const unsigned char* valueTile = ring + place.stage * Shape::keyBytes;
    fenceWgmma(out);
    SIMT_UNROLL
    for (int k = 0; k < keys / 16; ++k) {
      wgmma<RowFormat::bfloat16, true>(out, weight[k], advance(downTile(valueTile, keys), k * 16 * 128), true);
    }
    commitWgmma();
    waitForWgmma<0>(out);
    giveBack();
  }
  for (; j < lastKey; j += keys) pass();

  const int row = begin + wgmmaRow(0);  // and row + 8
  float inverse[2];
  SIMT_UNROLL
  for (int r = 0; r < 2; ++r) {
    for (int distance = 1; distance < 4; distance *= 2) {
      softmax[r].sum += __shfl_xor_sync(allLanes, softmax[r].sum, distance);
    }
    inverse[r] = softmax[r].inverse();
    if (lane % 4 == 0 && row + 8 * r < end) {
      a.logSumExp[p.rowStart(b, head) + row + 8 * r] = softmax[r].logSumExp();
    }
  }
  syncThreads(1 + consumer, 128);  // results go where the queries were, which nobody reads any more
  uint16_t* to = static_cast<uint16_t*>(a.out) + p.queryStart(b, head) + begin * p.queryLayout.row;
  const bool finite = storeRows<D>(queries, out, inverse, end - begin, to, p.queryLayout.row, static_cast<int>(p.dims));
  if (!finite) atomicOr(a.notFinite, 1);
#endif
}

/// Queries or keys, or what is laid out as they are, as boxes of `boxRows` rows of one head.
inline TensorTiles attentionTiles(const void* data, const AttentionProblem& p, bool ofQueries, int boxRows) {
  const AttentionLayout& at = ofQueries ? p.queryLayout : p.keyLayout;
  return {data,
          2,
          4,
          {p.dims, ofQueries ? p.queries : p.keys, ofQueries ? p.heads : p.kvHeads, p.batch},
          {1, at.row, at.head, at.batch},
          {64, boxRows, 1, 1}};
}

/// Whether the kernels of wgmma can take a call that suits the tensor cores (suitsMma). Packed sequences are not for
/// them, since their copies know no end but the tensor's; nor is dropout, nor a scale that would turn the largest score
/// into the smallest.
inline bool suitsWgmma(const AttentionProblem& p, const void* q, const void* k) {
  constexpr int64_t longest = 1 << 30;
  return !p.queryOffsets && !p.keyOffsets && p.dropout == 0 && p.scale > 0 && p.queries <= longest &&
         p.keys <= longest && p.batch <= longest && !mapFault(attentionTiles(q, p, true, 64)) &&
         !mapFault(attentionTiles(k, p, false, 64));
}

template <int D, bool adjusted>
void queueAttentionWgmma(Queue& queue, const AttentionArgs& a) {
  using Shape = WgmmaAttention<D, adjusted>;
  const AttentionProblem& p = a.problem;
  const int64_t tiles = tileCount(p, Shape::rows);
  queue.launch("attentionWgmma", attentionWgmma<D, adjusted>, {tiles, p.heads, Shape::shared, maxDynamicShared90},
               Shape::threads, a, tiles, tensorMap(queue, attentionTiles(a.q, p, true, Shape::queries)),
               tensorMap(queue, attentionTiles(a.k, p, false, Shape::keys)),
               tensorMap(queue, attentionTiles(a.v, p, false, Shape::keys)));
}

inline void queueAttentionWgmma(Queue& queue, const AttentionArgs& a) {
  withDims<32, 64, 96, 128>(a.problem.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    if (a.problem.keyMask || a.problem.bias.data) queueAttentionWgmma<D, true>(queue, a);
    else queueAttentionWgmma<D, false>(queue, a);
  });
}

}  // namespace topknot::cuda
