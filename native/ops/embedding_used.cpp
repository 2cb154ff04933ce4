#include "ops/embedding_used.h"

#include <cstring>

#include "backend/memory.h"
#include "backend/registry.h"

namespace topknot {
namespace {

constexpr int64_t grain = 256;  // rows

int64_t bytesOfRow(const Tensor& t) { return t.rows() > 0 ? static_cast<int64_t>(t.bytes()) / t.rows() : 0; }

}  // namespace

Device computingDevice(const EmbeddingRows& table, const std::optional<std::string>& device) {
  const Device there = table.data.device();
  if (!device) return there;
  const Device target = deviceNamed(*device);
  require(there == target || there.kind == Device::cpu, ErrorCode::device, "table: expected to be on device '",
          text(target), target.kind == Device::cpu ? "'" : "' or on 'cpu'", " but is on '", text(there), "'");
  return target;
}

UsedRows::UsedRows(const Exec& exec, const EmbeddingRows& table, const Tensor& ids, int64_t padding, Device device)
    : held_(table), table_(readyTable(table)), ids_(ids), padding_(padding) {
  if (table.data.device() == device) return;
  const int64_t count = ids.count();
  const Tensor order = Tensor::host<int32_t>({count}), rows = Tensor::host<int32_t>({count});
  const Tensor starts = Tensor::host<int64_t>({count + 1});
  int64_t groups = 0;
  run(Device{}, &Backend::embeddingGroup, "embeddingGroup", exec,
      EmbeddingGroupArgs{ids.data<int32_t>(), count, table_.rows, padding, order.data<int32_t>(), rows.data<int32_t>(),
                         starts.data<int64_t>(), &groups});
  require(!exec.cancelled(), ErrorCode::aborted, "the operation was aborted");
  rows_ = Tensor{rows.buffer, DType::int32, {groups}, nullptr};
  ids_ = Tensor::host<int32_t>(ids.shape);
  std::fill_n(ids_.data<int32_t>(), count, static_cast<int32_t>(groups));  // what remains is padding
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t i = starts.data<int64_t>()[g]; i < starts.data<int64_t>()[g + 1]; ++i) {
      ids_.data<int32_t>()[order.data<int32_t>()[i]] = static_cast<int32_t>(g);
    }
  }
  if (padding >= 0) padding_ = groups;
  const auto sent = [&](const Tensor& t) { return copyTo(rowsTaken(exec, t, *rows_), device); };
  held_.data = sent(table.data);
  if (table.scale) held_.scale = sent(*table.scale);
  if (table.bias) held_.bias = sent(*table.bias);
  table_ = checkedTable(held_);
}

Tensor rowsTaken(const Exec& exec, const Tensor& t, const Tensor& rows) {
  const Tensor out =
      t.rank() == 2 ? Tensor::host(t.dtype, {rows.count(), t.cols()}) : Tensor::host(t.dtype, {rows.count()});
  const int64_t bytes = bytesOfRow(t);
  parallelFor(rows.count(), grain, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(out.data<char>() + i * bytes, t.data<char>() + rows.data<int32_t>()[i] * bytes,
                  static_cast<size_t>(bytes));
    }
  });
  return out;
}

void putRows(const Exec& exec, const Tensor& from, const Tensor& rows, const Tensor& to) {
  const int64_t bytes = bytesOfRow(to);
  parallelFor(rows.count(), grain, exec, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(to.data<char>() + rows.data<int32_t>()[i] * bytes, from.data<char>() + i * bytes,
                  static_cast<size_t>(bytes));
    }
  });
}

}  // namespace topknot
