// Stable counting sort on the thread pool: the one way in which triplets become rows. Blocks are fixed by the input's
// size, so every entry lands in the same place at any thread count.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>

#include "core/tensor.h"
#include "core/thread_pool.h"

namespace topknot {

namespace detail {

template <typename Offset, typename Place>
void countingSort(std::span<const int32_t> keys, int64_t keyCount, int64_t* ptr, const Exec& exec, Place&& place) {
  const int64_t n = static_cast<int64_t>(keys.size());
  // Each block needs a histogram: more blocks than the input is worth would only cost memory.
  const int64_t blocks = std::clamp<int64_t>(std::min(n >> 16, 4 * n / std::max<int64_t>(keyCount, 1)), 1, 16);
  const int64_t size = (n + blocks - 1) / blocks;
  const Tensor counts = Tensor::host(DType::int8, {blocks * keyCount * static_cast<int64_t>(sizeof(Offset))}, true);
  Offset* histograms = static_cast<Offset*>(counts.buffer->data());

  parallelFor(blocks, 1, exec, [&](int64_t b, int64_t, int) {
    Offset* count = histograms + b * keyCount;
    for (int64_t i = b * size; i < std::min(n, (b + 1) * size); ++i) ++count[keys[i]];
  });
  ptr[0] = 0;
  for (int64_t key = 0; key < keyCount; ++key) {
    int64_t at = ptr[key];
    for (int64_t b = 0; b < blocks; ++b) {
      Offset& count = histograms[b * keyCount + key];
      const Offset c = count;
      count = static_cast<Offset>(at);
      at += c;
    }
    ptr[key + 1] = at;
  }
  parallelFor(blocks, 1, exec, [&](int64_t b, int64_t, int) {
    Offset* next = histograms + b * keyCount;
    for (int64_t i = b * size; i < std::min(n, (b + 1) * size); ++i) place(i, static_cast<int64_t>(next[keys[i]]++));
  });
}

}  // namespace detail

/// Fills ptr[keyCount + 1] with where each key's entries begin and calls place(i, at) for every entry i with its
/// position `at` in the order of (key, i). Keys must lie in [0, keyCount). Incomplete when exec is cancelled.
template <typename Place>
void countingSort(std::span<const int32_t> keys, int64_t keyCount, int64_t* ptr, const Exec& exec, Place&& place) {
  if (keys.size() <= UINT32_MAX) {
    detail::countingSort<uint32_t>(keys, keyCount, ptr, exec, place);
  } else {
    detail::countingSort<uint64_t>(keys, keyCount, ptr, exec, place);
  }
}

}  // namespace topknot
