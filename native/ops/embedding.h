// Embedding tables: rows looked up by id, one by one or in bags.
#pragma once
#include <optional>
#include <span>

#include "backend/embedding_args.h"
#include "core/fields.h"
#include "core/tensor.h"
#include "core/thread_pool.h"

namespace topknot {

/// float32, float16 or bfloat16 [rows, cols]; or int8 [rows, cols] or uint8 [rows, cols / 2] (two 4-bit numbers in each
/// byte, the even column in its low half) with scale and bias, float32 [rows].
struct EmbeddingRows {
  Tensor data;
  std::optional<Tensor> scale, bias;
};
TOPKNOT_FIELDS(EmbeddingRows, data, scale, bias)

TOPKNOT_ENUM(BagMode, "sum", "mean", "max")

struct BagOptions {
  BagMode mode = BagMode::sum;
  std::optional<Tensor> weights;  // float32, one for each entry; with sum alone
  int64_t padding = -1;           // entries with this id are left out; -1: none
};
TOPKNOT_FIELDS(BagOptions, mode, weights, padding)

/// What can be told of a table without waiting for what computes it. Throws ERR_DTYPE, ERR_SHAPE, ERR_ARGUMENT.
TableView checkedTable(const EmbeddingRows& table);

/// The entries of bags. The first constructor checks what can be told without waiting; `ready` waits, checks the
/// contents and makes the view.
class Bags {
 public:
  /// Without offsets: ids [bags, size], all bags of one size.
  Bags(Tensor ids, std::optional<Tensor> offsets, const BagOptions& options, int64_t rows);

  int64_t count() const { return count_; }
  /// Throws ERR_RANGE naming the entry.
  BagsView ready(const Exec& exec);

 private:
  Tensor ids_;
  std::optional<Tensor> offsets_, weights_;
  int64_t rows_, count_, padding_;
};

/// Throws ERR_DTYPE unless ids are int32 or int64.
void expectIdType(const Tensor& ids, const char* name);
/// Waits for ids and gives them as int32; throws ERR_RANGE naming the first that is not in [0, rows).
Tensor readyIds(const Exec& exec, const Tensor& ids, int64_t rows);

}  // namespace topknot
