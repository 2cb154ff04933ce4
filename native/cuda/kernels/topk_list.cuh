// The best keys that one block has seen, for k up to TopkList::capacity.
#pragma once
#include "cuda/kernels/keys.cuh"

namespace topknot::cuda {

/// In shared memory. The first half of `keys` is sorted, greatest first; the second half takes new arrivals, and is
/// merged into the first when it is full.
struct TopkList {
  static constexpr int capacity = 256;
  Key keys[2 * capacity];
  Key threshold;  // the k-th best so far: only greater keys matter
  int arrived;
};

/// The functions below are called by the whole block with the same list and k.

/// The caller puts a barrier behind it.
SIMT_DEVICE void clear(TopkList& list) {
  for (int i = static_cast<int>(threadIdx.x); i < 2 * TopkList::capacity; i += static_cast<int>(blockDim.x)) {
    list.keys[i] = noKey;
  }
  if (threadIdx.x == 0) {
    list.threshold = noKey;
    list.arrived = 0;
  }
}

/// Called behind a barrier; ends with one.
SIMT_DEVICE void merge(TopkList& list, int k) {
  sortKeys(list.keys, 2 * TopkList::capacity);
  for (int i = static_cast<int>(threadIdx.x); i < TopkList::capacity; i += static_cast<int>(blockDim.x)) {
    list.keys[TopkList::capacity + i] = noKey;
  }
  if (threadIdx.x == 0) {
    list.threshold = list.keys[k - 1];
    list.arrived = 0;
  }
  __syncthreads();
}

/// Every thread offers one key, or noKey. Called behind a barrier; ends with one.
SIMT_DEVICE void offer(TopkList& list, int k, Key key) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  bool waiting = key > list.threshold;
  for (;;) {
    // One atomic for each warp; its lanes take places in their order.
    const unsigned votes = __ballot_sync(allLanes, waiting);
    int place = 0;
    if (lane == 0 && votes) place = atomicAdd(&list.arrived, __popc(votes));
    place = __shfl_sync(allLanes, place, 0) + __popc(votes & ((1u << lane) - 1));
    if (waiting && place < TopkList::capacity) {
      list.keys[TopkList::capacity + place] = key;
      waiting = false;
    }
    if (!__syncthreads_or(waiting)) return;
    merge(list, k);
    waiting = waiting && key > list.threshold;
  }
}

}  // namespace topknot::cuda
