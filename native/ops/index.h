// What the exact index passes across the binding.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/topk_args.h"
#include "core/fields.h"
#include "core/tensor.h"

namespace topknot {

/// 8-bit codes of vectors (backend/topk_args.h).
struct Int8Codes {
  Tensor codes;              // uint8 [rows, dims]
  Tensor scales, residuals;  // float32 [rows]
};
TOPKNOT_FIELDS(Int8Codes, codes, scales, residuals)

/// A run of rows of an index.
struct IndexSegment {
  Tensor vectors;               // float32, float16 or bfloat16 [rows, dims]; bits: uint8 [rows, bytes]
  std::optional<Tensor> norms;  // float32 [rows]; for cosine, l2 and codes
  std::optional<Int8Codes> codes;
  std::optional<Tensor> allowed;  // as Filter::allowed
};
TOPKNOT_FIELDS(IndexSegment, vectors, norms, codes, allowed)

struct IndexSearchOptions {
  int64_t k = 0;
  Metric metric = Metric::innerProduct;  // of bits: Hamming, whatever this says
  int64_t rescore = 1;                   // candidates for each of k, where there are codes
  bool exact = false;                    // prove that no candidate is missing, or search without codes
  std::string device = "cpu";            // where to search; segments are there, or on the host
  std::optional<int64_t> blockBytes;     // of a segment on the host that a GPU searches
};
TOPKNOT_FIELDS(IndexSearchOptions, k, metric, rescore, exact, device, blockBytes)

struct IndexSearchResult {
  TypedArray ids, scores;             // [queries, k]; ids count the rows of all segments
  int64_t proven = 0, fallbacks = 0;  // queries, where `exact` was asked for
};
TOPKNOT_FIELDS(IndexSearchResult, ids, scores, proven, fallbacks)

}  // namespace topknot
