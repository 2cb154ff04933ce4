// Attention backward for compute capability 9.0a, bfloat16, as attention_backward_mma.cuh has it: a block owns rows, 64
// of keys and values, or of queries and the gradients of their results, for each of two consumer warpgroups; one thread
// of a third sends the rows of the other side through a ring, both tensors of a step as one stage. Read
// attention_wgmma.cuh first. Calls with a key mask, a bias or dropout are not for it.
#pragma once
#include "cuda/kernels/attention_backward_tiles.cuh"
#include "cuda/kernels/attention_wgmma.cuh"

namespace topknot::cuda {

/// The shapes of a block for heads of up to D numbers. As many rows of the other side in a step as registers allow.
template <int D, bool keysOwned>
struct WgmmaBackward {
  static constexpr int consumers = 2, owned = 64, rows = consumers * owned, N = D > 64 && keysOwned ? 64 : 128;
  static constexpr int threads = 128 * (1 + consumers);
  static constexpr int boxes = (D + 63) / 64;
  static constexpr int ownBox = 128 * owned, ownBytes = boxes * ownBox;  // of one of the two tensors
  static constexpr int box = 128 * N, bytes = boxes * box, stages = bytes > 16384 ? 2 : 4;
  static constexpr int64_t shared = int64_t{2} * consumers * ownBytes + int64_t{2} * stages * bytes + swizzleAlignment;
  static_assert(shared + 1024 <= maxDynamicShared90);
};

/// The rows of the other side that an owned row meets.
template <bool keysOwned>
SIMT_DEVICE KeyRange rowsMet(const AttentionProblem& p, int row) {
  if constexpr (!keysOwned) return keysSeen(p, row);
  const int64_t place = row - p.keys + p.queries;
  return rangeOf(place - p.right, place + p.left + 1, p.queries);
}

/// Copies of a tensor of a block: `rows` rows from `row` on, in boxes of 64 columns.
template <int boxes>
SIMT_DEVICE void copyRows(unsigned char* tile, const TensorMap& map, Barrier* full, int rows, int row, int head,
                          int b) {
  for (int i = 0; i < boxes; ++i) copyTile(tile + i * rows * 128, map, full, i * 64, row, head, b);
}

/// sums (64 x columns of the tiles) = own times other, transposed.
template <typename Shape, int D>
SIMT_DEVICE void multiplyRows(float (&sums)[Shape::N / 2], const unsigned char* own, const unsigned char* other) {
  SIMT_UNROLL
  for (int d = 0; d < D / 16; ++d) {
    wgmma<RowFormat::bfloat16>(sums, advance(acrossTile(own + d / 4 * Shape::ownBox), d % 4 * 32),
                               advance(acrossTile(other + d / 4 * Shape::box), d % 4 * 32), d > 0);
  }
}

/// Block (t, h): tile t of keys, of head h of keys; or of queries, of head h. gradient[0] is of the first tensor that
/// is owned (k or q), gradient[1] of v.
template <int D, bool keysOwned>
__global__ void __launch_bounds__(WgmmaBackward<D, keysOwned>::threads, 1)
    attentionBackwardWgmma(AttentionBackwardArgs a, int64_t tiles, const float* delta,
                           const __grid_constant__ TensorMap ownFirst, const __grid_constant__ TensorMap ownSecond,
                           const __grid_constant__ TensorMap otherFirst,
                           const __grid_constant__ TensorMap otherSecond) {
#if SIMT_SM90A
  using Shape = WgmmaBackward<D, keysOwned>;
  constexpr int N = Shape::N;
  SIMT_DYNAMIC_SHARED(memory);
  SIMT_SHARED(Barrier, ownFull, 1);
  SIMT_SHARED(Barrier, full, Shape::stages);
  SIMT_SHARED(Barrier, empty, Shape::stages);
  unsigned char* shared = swizzleAligned(memory);
  unsigned char* ring = shared + 2 * Shape::consumers * Shape::ownBytes;
  const AttentionProblem& p = a.problem;
  // Those that meet the most rows first.
  int64_t sequence, first;
  placeTile(nullptr, p.batch, Shape::rows, keysOwned ? blockIdx.x : tiles - 1 - blockIdx.x, sequence, first);
  const int b = static_cast<int>(sequence), blockBegin = static_cast<int>(first);
  const int64_t ownRows = keysOwned ? p.keys : p.queries;
  const int blockEnd = static_cast<int>(first + Shape::rows < ownRows ? first + Shape::rows : ownRows);
  const int consumers = (blockEnd - blockBegin + Shape::owned - 1) / Shape::owned;
  const int begin = rowsMet<keysOwned>(p, blockBegin).first, end = rowsMet<keysOwned>(p, blockEnd - 1).last;
  // Owned keys meet all heads that share them.
  const int group = static_cast<int>(p.heads / p.kvHeads), ownHead = static_cast<int>(blockIdx.y);
  const int firstHead = keysOwned ? ownHead * group : ownHead / group, heads = keysOwned ? group : 1;
  if (threadIdx.x == 0) {
    initBarrier(ownFull, 1);
    for (int s = 0; s < Shape::stages; ++s) {
      initBarrier(&full[s], 1);
      initBarrier(&empty[s], 4 * consumers);
    }
    fenceBarriers();
  }
  __syncthreads();  // the last one: producer and consumers part

  RingPlace<Shape::stages> place;
  const int consumer = static_cast<int>(threadIdx.x) / 128 - 1;
  if (consumer < 0) {
    shrinkRegisters<24>();
    if (threadIdx.x != 0) return;
    arriveExpecting(ownFull, 2 * consumers * Shape::ownBytes);
    for (int c = 0; c < consumers; ++c) {
      unsigned char* own = shared + 2 * c * Shape::ownBytes;
      copyRows<Shape::boxes>(own, ownFirst, ownFull, Shape::owned, blockBegin + c * Shape::owned, ownHead, b);
      copyRows<Shape::boxes>(own + Shape::ownBytes, ownSecond, ownFull, Shape::owned, blockBegin + c * Shape::owned,
                             ownHead, b);
    }
    for (int head = firstHead; head < firstHead + heads; ++head) {
      for (int at = begin; at < end; at += N, place.next()) {
        unsigned char* stage = ring + 2 * place.stage * Shape::bytes;
        waitPhase(&empty[place.stage], place.parity ^ 1);
        arriveExpecting(&full[place.stage], 2 * Shape::bytes);
        copyRows<Shape::boxes>(stage, otherFirst, &full[place.stage], N, at, head, b);
        copyRows<Shape::boxes>(stage + Shape::bytes, otherSecond, &full[place.stage], N, at, head, b);
      }
    }
    return;
  }
  growRegisters<240>();
  if (consumer >= consumers) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  unsigned char* own = shared + 2 * consumer * Shape::ownBytes;
  const int ownBegin = blockBegin + consumer * Shape::owned;
  const int ownEnd = ownBegin + Shape::owned < ownRows ? ownBegin + Shape::owned : static_cast<int>(ownRows);
  const KeyRange low = rowsMet<keysOwned>(p, ownBegin), high = rowsMet<keysOwned>(p, ownEnd - 1);
  const KeyRange some{low.first, high.last}, all{high.first, low.last};
  const int row = ownBegin + wgmmaRow(0);  // and row + 8
  const float scale = p.scale * log2e;
  QueryTerms terms[2];  // of two queries: of the owned rows, or of neighbouring columns
  if constexpr (!keysOwned) {
    const int64_t at = p.rowStart(b, ownHead);
    for (int r = 0; r < 2; ++r) terms[r] = queryTerms(a.logSumExp + at, delta + at, row + 8 * r, row + 8 * r < ownEnd);
  }
  float sum[D / 2] = {}, valueSum[keysOwned ? D / 2 : 1] = {};
  waitPhase(ownFull, 0);

  for (int head = firstHead; head < firstHead + heads; ++head) {
    for (int at = begin; at < end; at += N, place.next()) {
      waitPhase(&full[place.stage], place.parity);
      if (at < some.last && at + N > some.first) {
        const unsigned char* stage = ring + 2 * place.stage * Shape::bytes;
        float score[N / 2], gradient[N / 2];
        fenceWgmma(score, gradient);
        multiplyRows<Shape, D>(score, own, stage);
        multiplyRows<Shape, D>(gradient, own + Shape::ownBytes, stage + Shape::bytes);
        commitWgmma();
        waitForWgmma<0>(score, gradient);

        const bool whole = at >= all.first && at + N <= all.last;
        const KeyRange met[2] = {rowsMet<keysOwned>(p, row), rowsMet<keysOwned>(p, row + 8)};
        const int64_t queries = p.rowStart(b, head) + at;
        uint32_t weights[N / 16][4], gradients[N / 16][4];  // left operands of the steps
        SIMT_UNROLL
        for (int i = 0; i < N / 2; i += 2) {
          const int r = i / 2 % 2, column = wgmmaColumn(i);
          if constexpr (keysOwned) {
            if (r == 0) {
              for (int e = 0; e < 2; ++e) {
                terms[e] = queryTerms(a.logSumExp + queries, delta + queries, column + e, at + column + e < p.queries);
              }
            }
          }
          float weight[2], change[2];
          SIMT_UNROLL
          for (int e = 0; e < 2; ++e) {
            const QueryTerms& term = terms[keysOwned ? e : r];
            const int other = at + column + e;
            const bool seen = whole || (other >= met[r].first && other < met[r].last);
            weight[e] = seen ? exp2Fast(fmaf(score[i + e], scale, -term.reference)) : 0.0f;
            change[e] = weight[e] * (gradient[i + e] - term.delta);
          }
          weights[i / 8][i / 2 % 4] = packBf16(weight[0], weight[1]);
          gradients[i / 8][i / 2 % 4] = packBf16(change[0], change[1]);
        }
        if constexpr (keysOwned) fenceWgmma(sum, valueSum);
        else fenceWgmma(sum);
        SIMT_UNROLL
        for (int k = 0; k < N / 16; ++k) {
          if constexpr (keysOwned) {
            wgmma<RowFormat::bfloat16, true>(valueSum, weights[k],
                                             advance(downTile(stage + Shape::bytes, N), k * 16 * 128), true);
          }
          wgmma<RowFormat::bfloat16, true>(sum, gradients[k], advance(downTile(stage, N), k * 16 * 128), true);
        }
        commitWgmma();
        if constexpr (keysOwned) waitForWgmma<0>(sum, valueSum);
        else waitForWgmma<0>(sum);
      }
      __syncwarp(allLanes);
      if (lane == 0) arrive(&empty[place.stage]);
    }
  }

  const AttentionLayout& layout = keysOwned ? p.keyLayout : p.queryLayout;
  const int64_t start = (keysOwned ? p.keyStart(b, ownHead) : p.queryStart(b, ownHead)) + ownBegin * layout.row;
  const auto store = [&](unsigned char* tile, const float(&sums)[D / 2], float factor, void* to) {
    return storeRows<D>(tile, sums, {factor, factor}, ownEnd - ownBegin, static_cast<uint16_t*>(to) + start, layout.row,
                        static_cast<int>(p.dims));
  };
  syncThreads(1 + consumer, 128);  // results go where the owned rows were, which nobody reads any more
  bool finite = store(own, sum, p.scale, keysOwned ? a.kGradient : a.qGradient);
  if constexpr (keysOwned) finite = store(own + Shape::ownBytes, valueSum, 1, a.vGradient) && finite;
  if (!finite) atomicOr(a.notFinite, 1);
#endif
}

/// Whether the kernel here can take a call that suits the tensor cores.
inline bool suitsWgmma(const AttentionBackwardArgs& a) {
  return suitsWgmma(a.problem, a.q, a.k) && !a.problem.keyMask && !a.problem.bias.data;
}

template <int D, bool keysOwned>
void queueBackwardWgmma(Queue& queue, const AttentionBackwardArgs& a, const float* delta) {
  using Shape = WgmmaBackward<D, keysOwned>;
  const AttentionProblem& p = a.problem;
  const auto map = [&](const void* data, bool ofQueries) {
    return tensorMap(queue, attentionTiles(data, p, ofQueries, ofQueries != keysOwned ? Shape::owned : Shape::N));
  };
  const TensorMap q = map(a.q, true), outGradient = map(a.outGradient, true), k = map(a.k, false), v = map(a.v, false);
  const int64_t tiles = ((keysOwned ? p.keys : p.queries) + Shape::rows - 1) / Shape::rows * p.batch;
  const Grid grid{tiles, keysOwned ? p.kvHeads : p.heads, Shape::shared, maxDynamicShared90};
  queue.launch("attentionBackwardWgmma", attentionBackwardWgmma<D, keysOwned>, grid, Shape::threads, a, tiles, delta,
               keysOwned ? k : q, keysOwned ? v : outGradient, keysOwned ? q : k, keysOwned ? outGradient : v);
}

inline void queueBackwardWgmma(Queue& queue, const AttentionBackwardArgs& a, const float* delta) {
  withDims<64, 128>(a.problem.dims, [&](auto dims) {
    queueBackwardWgmma<decltype(dims)::value, true>(queue, a, delta);
    queueBackwardWgmma<decltype(dims)::value, false>(queue, a, delta);
  });
}

}  // namespace topknot::cuda
