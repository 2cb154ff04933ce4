// Top-k over rows of bytes: 8-bit codes of vectors (topk_int8.cpp) and packed bits (topk_binary.cpp). Both sum a
// function of bytes in int32, so scans give the same bits on every instruction set and in every batch.
#pragma once
#include <cstdint>

#include "cpu/kernels/topk_scan.h"

namespace topknot {

/// How an item's sum becomes its score: -sum; sum * scale; or step * sum * scale + bound - weight * norm, where step
/// and weight belong to the query.
enum class CodeScore { negative, scaled, bounded };

/// What a scan over bytes is given.
struct CodesScan {
  using Packed = int32_t;  // four bytes of a query

  const uint8_t* codes;  // [rows, cols]
  int64_t rows, cols;
  const FilterView& filter;
  const ScanItems items;
  const float* scales = nullptr;  // [rows]
  const float* bounds = nullptr;  // [rows]; null: 0
  const float* norms = nullptr;   // [rows]; null: 0

  const uint8_t* row(int64_t j) const { return codes + items.at(j) * cols; }
  void offer(Candidates& candidates, int64_t query, int64_t local, int64_t j, float score) const {
    const int32_t item = items.at(j);
    if (admits(filter, query, item)) candidates.push(local, keyOf(score, item));
  }
};

/// A block of queries: arrays as long as its queries, padded to whole panels.
struct CodesBlock {
  const CodesScan& scan;
  int64_t first, queries;
  const int32_t* packed;  // rows: each query's bytes padded with zeros; tiles: panels of lanes with four bytes each
  const int32_t* starts;  // where sums start
  const float* steps;
  const float* weights;
};

}  // namespace topknot
