// The rows of an embedding table that one call looks up, where it computes. A table may be larger than the memory of a
// GPU, or a mapped file: then it stays in host memory, and each call sends what it reads.
#pragma once
#include <optional>
#include <string>

#include "ops/embedding.h"

namespace topknot {

/// Where a call on `table` computes: where the table lies, unless `device` names another place. Throws ERR_DEVICE for a
/// table on a GPU and another device.
Device computingDevice(const EmbeddingRows& table, const std::optional<std::string>& device);

class UsedRows {
 public:
  /// `ids`: int32 on the host, rows of the table. A table on `device` is used as it is. Of another one the rows that
  /// are looked up, each once, are gathered on the host and sent; ids become places among them. The table is not read
  /// before this.
  UsedRows(const Exec& exec, const EmbeddingRows& table, const Tensor& ids, int64_t padding, Device device);

  /// On the device.
  const TableView& table() const { return table_; }
  /// Rows of table(), on the host, and that which stands for padding.
  const Tensor& ids() const { return ids_; }
  int64_t padding() const { return padding_; }
  /// int32 on the host, rising: which row of the whole table each row of table() is. Null where they are the same.
  const Tensor* rows() const { return rows_ ? &*rows_ : nullptr; }

 private:
  EmbeddingRows held_;  // what table_ points to
  TableView table_;
  Tensor ids_;
  int64_t padding_;
  std::optional<Tensor> rows_;
};

/// On the host: row rows[i] of t, whose first dimension counts rows, for every i; and back.
Tensor rowsTaken(const Exec& exec, const Tensor& t, const Tensor& rows);
void putRows(const Exec& exec, const Tensor& from, const Tensor& rows, const Tensor& to);

}  // namespace topknot
