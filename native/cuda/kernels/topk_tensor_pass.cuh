// The two passes of topk_tensor.cuh over the items: what they are given, and where the keys of pairs go.
#pragma once
#include "cuda/kernels/topk_pairs.cuh"

namespace topknot::cuda {

/// What both passes are given.
template <RowFormat format>
struct TensorPass {
  FloatPairs<format> pairs;
  FilterView filter;
  QueryChunk chunk;
  int64_t step, count;  // items 0, step, 2 step, ..., count of them
};

/// The first pass writes all keys: [chunk, count].
struct SampleKeys {
  Key* keys;
  int64_t count;
  __device__ Key least(int64_t) const { return noKey; }
  __device__ void take(int64_t local, int64_t place, Key key) const { keys[local * count + place] = key; }
};

/// The second one appends the keys that reach the query's threshold, in any order: [chunk, capacity].
struct TensorBuffers {
  Key *keys, *thresholds;
  unsigned* counts;  // may exceed the capacity
  int64_t capacity;
  __device__ Key least(int64_t local) const { return thresholds[local]; }
  __device__ void take(int64_t local, int64_t, Key key) const {
    if (key == noKey) return;
    const unsigned place = atomicAdd(&counts[local], 1u);
    if (place < capacity) keys[local * capacity + place] = key;
  }
};

}  // namespace topknot::cuda
