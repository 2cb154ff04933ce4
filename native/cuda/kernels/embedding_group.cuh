// Entries by the row that they look up, the CUDA side of cpu/kernels/embedding_group.cpp: a stable sort of the entries
// by row (of the device-wide library, see cuda/device_sort.h), then the places where the row changes.
#pragma once
#include <bit>

#include "cuda/device_scan.h"
#include "cuda/device_sort.h"
#include "cuda/kernels/embedding_rows.cuh"

namespace topknot::cuda {

/// keys[i] = the row of entry i; padding comes behind all rows. entries[i] = i.
__global__ void __launch_bounds__(embeddingThreads) groupKeys(EmbeddingGroupArgs a, uint32_t* keys, int32_t* entries) {
  const int64_t i = int64_t{blockIdx.x} * embeddingThreads + threadIdx.x;
  if (i >= a.count) return;
  keys[i] = static_cast<uint32_t>(a.ids[i] == a.padding ? a.tableRows : a.ids[i]);
  entries[i] = static_cast<int32_t>(i);
}

SIMT_DEVICE bool startsGroup(const uint32_t* keys, int64_t i, int64_t tableRows) {
  return keys[i] < static_cast<uint64_t>(tableRows) && (i == 0 || keys[i] != keys[i - 1]);
}

__global__ void __launch_bounds__(embeddingThreads)
    groupFlags(const uint32_t* keys, int64_t count, int64_t tableRows, int32_t* flags) {
  const int64_t i = int64_t{blockIdx.x} * embeddingThreads + threadIdx.x;
  if (i < count) flags[i] = startsGroup(keys, i, tableRows);
}

/// before[i]: how many groups start before entry i.
__global__ void __launch_bounds__(embeddingThreads)
    groupStarts(EmbeddingGroupArgs a, const uint32_t* keys, const int32_t* before) {
  const int64_t i = int64_t{blockIdx.x} * embeddingThreads + threadIdx.x;
  if (i >= a.count) return;
  if (startsGroup(keys, i, a.tableRows)) {
    a.rows[before[i]] = static_cast<int32_t>(keys[i]);
    a.starts[before[i]] = i;
  }
  const bool kept = keys[i] < static_cast<uint64_t>(a.tableRows);
  const bool nextKept = i + 1 < a.count && keys[i + 1] < static_cast<uint64_t>(a.tableRows);
  if (i == 0 && !kept) {
    *a.groups = 0;
    a.starts[0] = 0;
  }
  if (kept && !nextKept) {  // the last entry that is not padding
    const int64_t groups = before[i] + (startsGroup(keys, i, a.tableRows) ? 1 : 0);
    *a.groups = groups;
    a.starts[groups] = i + 1;
  }
}

__global__ void groupNothing(EmbeddingGroupArgs a) {
  *a.groups = 0;
  a.starts[0] = 0;
}

/// The `embeddingGroup` slot. `groups` too is device memory.
inline Status embeddingGroup(const Exec& exec, const EmbeddingGroupArgs& a) {
  Queue queue(exec);
  if (a.count == 0) {
    queue.launch("groupNothing", groupNothing, {1}, 1, a);
    return queue.status();
  }
  uint32_t* keys = queue.workspace<uint32_t>(a.count);
  uint32_t* sorted = queue.workspace<uint32_t>(a.count);
  int32_t* entries = queue.workspace<int32_t>(a.count);
  int32_t* before = queue.workspace<int32_t>(a.count);
  const Grid grid{(a.count + embeddingThreads - 1) / embeddingThreads};
  queue.launch("groupKeys", groupKeys, grid, embeddingThreads, a, keys, entries);
  const int bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(a.tableRows)));
  sortPairs(queue, keys, sorted, entries, a.order, a.count, bits);
  queue.launch("groupFlags", groupFlags, grid, embeddingThreads, sorted, a.count, a.tableRows, entries);
  exclusiveSum(queue, entries, before, a.count);
  queue.launch("groupStarts", groupStarts, grid, embeddingThreads, a, sorted, before);
  return queue.status();
}

}  // namespace topknot::cuda
