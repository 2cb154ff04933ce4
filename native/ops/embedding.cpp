// Embedding lookups: what is asked is checked here, in two parts. What can be told without waiting is told at the call;
// ids and offsets are looked at once the operations that compute them have ended.
#include "ops/embedding.h"

#include <cstring>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/embedding_used.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

RowFormat formatOf(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return RowFormat::float32;
    case DType::float16:
      return RowFormat::float16;
    case DType::bfloat16:
      return RowFormat::bfloat16;
    case DType::int8:
      return RowFormat::int8;
    case DType::uint8:
      return RowFormat::int4;
    default:
      fail(ErrorCode::dtype,
           "table: expected float32, float16 or bfloat16, or int8 or uint8 with scale and bias, but "
           "received ",
           std::string(text(dtype)));
  }
}

bool isQuantized(RowFormat format) { return format == RowFormat::int8 || format == RowFormat::int4; }

void expectRowNumbers(const std::optional<Tensor>& t, const char* name, const Tensor& table) {
  const int64_t rows = table.rows();
  require(t.has_value(), ErrorCode::argument, name,
          ": expected a number for each row of a quantized table but received none");
  require(t->dtype == DType::float32, ErrorCode::dtype, name, ": expected float32 but received ",
          std::string(text(t->dtype)));
  require(t->rank() == 1 && t->rows() == rows, ErrorCode::shape, name, ": expected shape [", rows,
          "], a number for each row of the table, but received ", text(t->shape));
  expectSameDevice(*t, name, table, "table.data");
}

void gatherInto(const Exec& exec, const EmbeddingRows& table, const Tensor& ids, Tensor& out) {
  const UsedRows used(exec, table, readyIds(exec, ids, table.data.rows()), -1, out.device());
  const Tensor rows = copyTo(used.ids(), out.device());
  run(out.device(), &Backend::gather, "gather", exec,
      GatherArgs{used.table(), rows.data<int32_t>(), rows.count(), out.buffer->data()});
}

void bagInto(const Exec& exec, const EmbeddingRows& table, Bags& bags, BagMode mode, Tensor& out) {
  const BagsView view = bags.ready(exec, table, out.device());
  run(out.device(), &Backend::embeddingBag, "embeddingBag", exec,
      EmbeddingBagArgs{bags.used().table(), view, mode, out.data<float>(), nullptr});
}

/// Rows of float tables keep their dtype; those of quantized ones become float32.
Tensor gathered(const EmbeddingRows& table, const Tensor& ids, const std::optional<std::string>& device) {
  const TableView view = checkedTable(table);
  expectIdType(ids, "ids");
  require(ids.rank() < Shape::maxRank, ErrorCode::shape, "ids: expected at most ", Shape::maxRank - 1,
          " dimensions but received shape ", text(ids.shape));
  std::vector<int64_t> dims(ids.shape.dims().begin(), ids.shape.dims().end());
  dims.push_back(view.cols);
  return empty(computingDevice(table, device), isQuantized(view.format) ? DType::float32 : table.data.dtype,
               Shape{dims});
}

}  // namespace

TableView checkedTable(const EmbeddingRows& table) {
  const RowFormat format = formatOf(table.data.dtype);
  require(table.data.rank() == 2, ErrorCode::shape, "table: expected 2 dimensions but received shape ",
          text(table.data.shape));
  const int64_t rows = table.data.rows(), cols = table.data.cols() * (format == RowFormat::int4 ? 2 : 1);
  require(cols >= 1, ErrorCode::shape, "table: expected at least one column but received shape ",
          text(table.data.shape));
  require(rows <= INT32_MAX, ErrorCode::range, "table: expected at most 2147483647 rows but received ", rows);
  TableView view{table.data.buffer->data(), rows, cols, format};
  if (isQuantized(format)) {
    expectRowNumbers(table.scale, "table.scale", table.data);
    expectRowNumbers(table.bias, "table.bias", table.data);
    view.scale = table.scale->data<float>();
    view.bias = table.bias->data<float>();
  } else {
    require(!table.scale && !table.bias, ErrorCode::argument,
            "table.scale: expected only with int8 and uint8 rows, "
            "but the table has ",
            std::string(text(table.data.dtype)));
  }
  return view;
}

TableView readyTable(const EmbeddingRows& table) {
  waitFor(table.data);
  if (table.scale) waitFor(*table.scale);
  if (table.bias) waitFor(*table.bias);
  return checkedTable(table);
}

void expectIdType(const Tensor& ids, const char* name) {
  require(ids.dtype == DType::int32 || ids.dtype == DType::int64, ErrorCode::dtype, name,
          ": expected int32 or int64 but received ", std::string(text(ids.dtype)));
}

Tensor readyIds(const Exec& exec, const Tensor& given, int64_t rows) {
  waitFor(given);
  const Tensor ids = copyTo(given, Device{});
  const int64_t n = ids.count();
  const bool wide = ids.dtype == DType::int64;
  Tensor out = wide ? Tensor::host<int32_t>(ids.shape) : ids;
  parallelFor(n, 1 << 15, exec, [&](int64_t begin, int64_t end, int) {
    bool bad = false;
    if (wide) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t id = ids.data<int64_t>()[i];
        bad |= static_cast<uint64_t>(id) >= static_cast<uint64_t>(rows);
        out.data<int32_t>()[i] = static_cast<int32_t>(id);
      }
    } else {
      const uint32_t limit = static_cast<uint32_t>(rows);
      for (int64_t i = begin; i < end; ++i) bad |= static_cast<uint32_t>(ids.data<int32_t>()[i]) >= limit;
    }
    for (int64_t i = begin; bad && i < end; ++i) {
      const int64_t id = wide ? ids.data<int64_t>()[i] : ids.data<int32_t>()[i];
      require(id >= 0 && id < rows, ErrorCode::range, "ids: expected rows in 0 to ", rows - 1, " but entry ", i, " is ",
              id);
    }
  });
  return out;
}

Bags::Bags(Tensor ids, std::optional<Tensor> offsets, const BagOptions& options, int64_t rows)
    : ids_(std::move(ids)),
      offsets_(std::move(offsets)),
      weights_(options.weights),
      rows_(rows),
      padding_(options.padding) {
  expectIdType(ids_, "ids");
  if (offsets_) {
    expectIdType(*offsets_, "offsets");
    require(ids_.rank() == 1, ErrorCode::shape, "ids: expected 1 dimension, with offsets, but received shape ",
            text(ids_.shape));
    require(offsets_->rank() == 1 && offsets_->rows() >= 1, ErrorCode::shape,
            "offsets: expected shape [bags + 1], from 0 to the number of ids, but received ", text(offsets_->shape));
    count_ = offsets_->rows() - 1;
  } else {
    require(ids_.rank() == 2, ErrorCode::shape, "ids: expected shape [bags, size], without offsets, but received ",
            text(ids_.shape));
    count_ = ids_.rows();
  }
  require(ids_.count() <= INT32_MAX, ErrorCode::range, "ids: expected at most 2147483647 but received ", ids_.count());
  require(padding_ >= -1 && padding_ < rows, ErrorCode::range, "paddingIndex: expected a row in 0 to ", rows - 1,
          " but received ", padding_);
  if (!weights_) return;
  require(options.mode == BagMode::sum, ErrorCode::argument, "weights: expected with mode 'sum' alone but received '",
          topknotNames(options.mode)[static_cast<size_t>(options.mode)], "'");
  require(weights_->dtype == DType::float32, ErrorCode::dtype, "weights: expected float32 but received ",
          std::string(text(weights_->dtype)));
  require(weights_->shape == ids_.shape || (weights_->rank() == 1 && weights_->count() == ids_.count()),
          ErrorCode::shape, "weights: expected shape ", text(ids_.shape), ", one for each of ids, but received ",
          text(weights_->shape));
}

BagsView Bags::ready(const Exec& exec, const EmbeddingRows& table, Device device) {
  if (used_) return view_;
  ids_ = readyIds(exec, ids_, rows_);
  const int64_t entries = ids_.count();
  Tensor ends = Tensor::host<int64_t>({count_ + 1});
  int64_t* out = ends.data<int64_t>();
  if (!offsets_) {
    for (int64_t b = 0; b <= count_; ++b) out[b] = b * ids_.cols();
  } else {
    waitFor(*offsets_);
    const Tensor offsets = copyTo(*offsets_, Device{});
    for (int64_t b = 0; b <= count_; ++b) {
      out[b] = offsets.dtype == DType::int64 ? offsets.data<int64_t>()[b] : offsets.data<int32_t>()[b];
      require(b > 0 || out[0] == 0, ErrorCode::range, "offsets: expected to start at 0 but entry 0 is ", out[0]);
      require(b == 0 || out[b] >= out[b - 1], ErrorCode::range, "offsets: expected never to fall but entry ", b, " is ",
              out[b], " after ", out[b > 0 ? b - 1 : 0]);
      require(out[b] <= entries, ErrorCode::range, "offsets: expected at most ", entries,
              ", the number of ids, but entry ", b, " is ", out[b]);
    }
    require(out[count_] == entries, ErrorCode::range, "offsets: expected the last entry to be ", entries,
            ", the number of ids, but received ", out[count_]);
  }
  const auto used = std::make_shared<UsedRows>(exec, table, ids_, padding_, device);
  ids_ = copyTo(used->ids(), device);
  offsets_ = copyTo(ends, device);
  if (weights_) {
    waitFor(*weights_);
    weights_ = copyTo(*weights_, device);
  }
  view_ = {ids_.data<int32_t>(), offsets_->data<int64_t>(), count_, weights_ ? weights_->data<float>() : nullptr,
           used->padding()};
  used_ = used;
  return view_;
}

namespace ops {

Tensor gather(Stream& stream, EmbeddingRows table, Tensor ids, std::optional<std::string> device) {
  Tensor out = gathered(table, ids, device);
  out.pending = stream.enqueue([=, result = out](const Exec& exec) mutable { gatherInto(exec, table, ids, result); });
  return out;
}

Tensor gatherRows(Job& job, EmbeddingRows table, Tensor ids, std::optional<std::string> device) {
  Tensor out = gathered(table, ids, device);
  gatherInto(job.exec(), table, ids, out);
  job.checkCancelled();
  return out;
}

Tensor embeddingBag(Stream& stream, EmbeddingRows table, Tensor ids, std::optional<Tensor> offsets, BagOptions options,
                    std::optional<std::string> device) {
  const TableView view = checkedTable(table);
  Bags bags(std::move(ids), std::move(offsets), options, view.rows);
  Tensor out = empty<float>(computingDevice(table, device), {bags.count(), view.cols});
  out.pending = stream.enqueue(
      [=, mode = options.mode, result = out](const Exec& exec) mutable { bagInto(exec, table, bags, mode, result); });
  return out;
}

Tensor embeddingBagRows(Job& job, EmbeddingRows table, Tensor ids, std::optional<Tensor> offsets, BagOptions options,
                        std::optional<std::string> device) {
  const TableView view = checkedTable(table);
  Bags bags(std::move(ids), std::move(offsets), options, view.rows);
  Tensor out = empty<float>(computingDevice(table, device), {bags.count(), view.cols});
  bagInto(job.exec(), table, bags, options.mode, out);
  job.checkCancelled();
  return out;
}

}  // namespace ops
}  // namespace topknot
