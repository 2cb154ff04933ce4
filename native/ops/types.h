// The plain structs and enums that operations take and return.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/topk_args.h"
#include "core/csr.h"
#include "core/fields.h"
#include "core/tensor.h"

namespace topknot {

struct TensorInfo {
  std::vector<int64_t> shape;
  DType dtype;
  std::string device;
};
TOPKNOT_FIELDS(TensorInfo, shape, dtype, device)

/// A device that tensors can live on.
struct DeviceEntry {
  std::string device;  // 'cpu', 'cuda:0', ...
  std::string name, isa;
  int64_t totalBytes;
  std::optional<std::string> driver;
};
TOPKNOT_FIELDS(DeviceEntry, device, name, isa, totalBytes, driver)

struct CudaMemoryUse {
  std::string device;
  int64_t usedBytes, keptBytes;
};
TOPKNOT_FIELDS(CudaMemoryUse, device, usedBytes, keptBytes)

struct MemoryReport {
  int64_t hostBytes, hostBuffers, hostKeptBytes, cudaBytes, cudaBuffers;
  std::vector<CudaMemoryUse> cuda;  // of the devices in use
};
TOPKNOT_FIELDS(MemoryReport, hostBytes, hostBuffers, hostKeptBytes, cudaBytes, cudaBuffers, cuda)

/// What to do with two entries for the same cell.
enum class Duplicates : int32_t { sum, refuse, first, last, max };
TOPKNOT_ENUM(Duplicates, "sum", "refuse", "first", "last", "max")

/// Interactions as they are kept: by user row, a user's own by time (where there are times), then in input order.
struct Triplets {
  Tensor users, items, values;  // int32, int32, float32 [n]
  std::optional<Tensor> times;  // float64 [n]
};
TOPKNOT_FIELDS(Triplets, users, items, values, times)

struct CleanOptions {
  double minValue, maxValue;
  std::optional<double> threshold;  // values from here on become 1, others are dropped
  Duplicates duplicates;
  bool refuse;  // throw for the first invalid interaction instead of dropping it
  int64_t minUserCount, minItemCount;
  bool keepUsers, keepItems;  // keep the rows of users and items without interactions
};
TOPKNOT_FIELDS(CleanOptions, minValue, maxValue, threshold, duplicates, refuse, minUserCount, minItemCount, keepUsers,
               keepItems)

/// How many interactions were left out, by reason.
struct DropCounts {
  int64_t missingUser = 0, missingItem = 0, missingValue = 0, missingTime = 0, unknownUser = 0, unknownItem = 0;
  int64_t notFinite = 0, outOfRange = 0, duplicate = 0, belowThreshold = 0, belowMinCount = 0;
};
TOPKNOT_FIELDS(DropCounts, missingUser, missingItem, missingValue, missingTime, unknownUser, unknownItem, notFinite,
               outOfRange, duplicate, belowThreshold, belowMinCount)

struct Cleaned {
  Triplets data;
  std::optional<Tensor> keptUsers, keptItems;  // int32, the earlier row of each row; absent when all were kept
  DropCounts counts;
};
TOPKNOT_FIELDS(Cleaned, data, keptUsers, keptItems, counts)

/// The JSON of a safetensors file, where its data starts, the file's size, and which state of the file that was.
struct SafetensorsHeader {
  TypedArray json;
  double dataStart, bytes;
  std::string stamp;
};
TOPKNOT_FIELDS(SafetensorsHeader, json, dataStart, bytes, stamp)

/// A tensor within a file; offset in bytes from the file's start.
struct FilePart {
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  int64_t offset = 0;
};
TOPKNOT_FIELDS(FilePart, dtype, shape, offset)

TOPKNOT_ENUM(Metric, "innerProduct", "cosine", "l2")

/// Which items a query may get; applied before selection, so k items come back whenever k are allowed.
struct Filter {
  std::optional<Tensor> allowed;   // int64 [ceil(items / 64)]: bit i % 64 of word i / 64 set: item i is allowed
  std::optional<Csr> seen;         // [rows, items]: items not to return to a query
  std::optional<Tensor> seenRows;  // int32 [queries]: the row of `seen` for each query; without it query q has row q
};
TOPKNOT_FIELDS(Filter, allowed, seen, seenRows)

struct TopkResult {
  Tensor ids;     // int32 [queries, k], best first, ties by rising id; -1 where fewer than k items were allowed
  Tensor scores;  // float32 [queries, k]: inner product, cosine or squared distance; NaN behind -1
};
TOPKNOT_FIELDS(TopkResult, ids, scores)

struct RankCounts {
  Tensor above, equal;  // int32 [positives.nnz]
};
TOPKNOT_FIELDS(RankCounts, above, equal)

/// A search's answer in typed arrays, for callers that read it at once.
struct SearchResult {
  TypedArray ids, scores;
};
TOPKNOT_FIELDS(SearchResult, ids, scores)

/// What a fit must know of its interactions.
struct InteractionStats {
  double leastWeight;
  TypedArray emptyRows, emptyCols;  // int32: users and items without interactions
};
TOPKNOT_FIELDS(InteractionStats, leastWeight, emptyRows, emptyCols)

enum class Weighting : int32_t { binary, log, bm25, tfidf, rarity };
TOPKNOT_ENUM(Weighting, "binary", "log", "bm25", "tfidf", "rarity")

struct WeightOptions {
  Weighting scheme;
  double alpha, k1, b, exponent;  // alpha for log; k1 and b for bm25; exponent for rarity
};
TOPKNOT_FIELDS(WeightOptions, scheme, alpha, k1, b, exponent)

/// Of the values of one user.
enum class Normalization : int32_t { meanCenter, l1, l2 };
TOPKNOT_ENUM(Normalization, "mean-center", "l1", "l2")

}  // namespace topknot
