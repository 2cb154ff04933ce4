// The gradients of the rows that embedding lookups used, ready for a kernel to sum.
#pragma once
#include <optional>

#include "ops/embedding.h"

namespace topknot {

class EmbeddingGradients {
 public:
  /// Checks everything, waits for what is still being computed, sorts the entries by row. The gradient must be on
  /// `device`, where this computes; the table may be in host memory.
  EmbeddingGradients(const Exec& exec, Tensor gradient, const EmbeddingRows& table, Tensor ids,
                     std::optional<Tensor> offsets, const BagOptions& options, Device device);

  RowGradientsView view() const;
  /// int32, rising: the rows that were looked up, of used().
  const Tensor& rows() const { return rows_; }
  const UsedRows& used() const { return bags_->used(); }
  /// The gradient of the weight of each entry; 0 for padding.
  Tensor weightGradient(const Exec& exec);

 private:
  void placeEntries(const Exec& exec, const BagsView& view, BagMode mode);

  EmbeddingRows table_;
  Device device_;
  std::optional<Bags> bags_;
  Tensor gradient_, order_, rows_, starts_, bagOf_;
  std::optional<Tensor> weightOf_, winners_;
  int64_t groups_ = 0;
};

}  // namespace topknot
