// The gradients of the rows that embedding lookups used, ready for a kernel to sum.
#pragma once
#include <optional>

#include "ops/embedding.h"

namespace topknot {

class EmbeddingGradients {
 public:
  /// Checks everything, waits for what is still being computed, sorts the entries by row.
  EmbeddingGradients(const Exec& exec, Tensor gradient, const EmbeddingRows& table, Tensor ids,
                     std::optional<Tensor> offsets, const BagOptions& options);

  RowGradientsView view() const;
  /// int32, rising: the rows that were looked up.
  const Tensor& rows() const { return rows_; }
  /// The gradient of the weight of each entry; 0 for padding.
  Tensor weightGradient(const Exec& exec);

 private:
  void placeEntries(const Exec& exec, const BagsView& view, BagMode mode);

  Device device_;
  TableView table_;
  std::optional<Bags> bags_;
  Tensor gradient_, order_, rows_, starts_, bagOf_;
  std::optional<Tensor> weightOf_, winners_;
  int64_t groups_ = 0;
};

}  // namespace topknot
