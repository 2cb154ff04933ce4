// Embedding tables: rows looked up by id, one by one or in bags.
#pragma once
#include <memory>
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

/// Rows that were looked up, rising, and the derivative of the loss by each.
struct RowGradients {
  Tensor rows, values;            // int32 [groups], float32 [groups, cols]
  std::optional<Tensor> weights;  // float32 [entries]
};
TOPKNOT_FIELDS(RowGradients, rows, values, weights)

struct QuantizedRows {
  Tensor data, scale, bias;
};
TOPKNOT_FIELDS(QuantizedRows, data, scale, bias)

TOPKNOT_ENUM(EmbeddingOptimizer, "sgd", "adagrad", "adam")

struct EmbeddingUpdateOptions {
  EmbeddingOptimizer optimizer = EmbeddingOptimizer::sgd;
  double learningRate = 0, epsilon = 1, beta1 = 0, beta2 = 0;
  int64_t seed = 0, step = 1;  // step counts from 1
};
TOPKNOT_FIELDS(EmbeddingUpdateOptions, optimizer, learningRate, epsilon, beta1, beta2, seed, step)

/// What can be told of a table without waiting for what computes it. Throws ERR_DTYPE, ERR_SHAPE, ERR_ARGUMENT.
TableView checkedTable(const EmbeddingRows& table);
/// Its view once the operations that compute it have ended.
TableView readyTable(const EmbeddingRows& table);

class UsedRows;

/// The entries of bags. The first constructor checks what can be told without waiting; `ready` waits, checks the
/// contents and makes the view.
class Bags {
 public:
  /// Without offsets: ids [bags, size], all bags of one size.
  Bags(Tensor ids, std::optional<Tensor> offsets, const BagOptions& options, int64_t rows);

  int64_t count() const { return count_; }
  int64_t entries() const { return ids_.count(); }
  /// Throws ERR_RANGE naming the entry. The view is of memory on `device`, whichever device ids, offsets and weights
  /// are on. Later calls answer with the first one's.
  BagsView ready(const Exec& exec, const EmbeddingRows& table, Device device);
  /// After `ready`: the rows that the view's ids are of.
  const UsedRows& used() const { return *used_; }

 private:
  std::shared_ptr<const UsedRows> used_;
  BagsView view_{};
  Tensor ids_;
  std::optional<Tensor> offsets_, weights_;
  int64_t rows_, count_, padding_;
};

/// Throws ERR_DTYPE unless ids are int32 or int64.
void expectIdType(const Tensor& ids, const char* name);
/// Waits for ids, on any device, and gives them as int32 on the host; throws ERR_RANGE naming the first that is not in
/// [0, rows).
Tensor readyIds(const Exec& exec, const Tensor& ids, int64_t rows);

}  // namespace topknot
