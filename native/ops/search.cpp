// The ways to call top-k: from a model or an index, where one call must do, and queued on a stream.
#include <algorithm>

#include "backend/memory.h"
#include "ops/ops.h"
#include "ops/queued.h"
#include "ops/topk_checks.h"

namespace topknot {
namespace {

/// Vectors from JavaScript come flat: one query, or as many as fit the width.
Tensor asQueries(Tensor queries, int64_t width) {
  if (queries.rank() != 1 || width == 0) return queries;
  require(queries.count() % width == 0, ErrorCode::shape, "queries: expected ", width,
          " numbers for each query but received ", queries.count());
  queries.shape = Shape{queries.count() / width, width};
  return queries;
}

}  // namespace

namespace ops {

SearchResult search(Job& job, Tensor queries, std::optional<Tensor> rows, Tensor items, std::optional<Tensor> itemNorms,
                    int64_t k, Metric metric, Filter filter) {
  require(items.rank() == 2, ErrorCode::shape, "items: expected 2 dimensions but received shape ", text(items.shape));
  waitFor(queries);
  // Rows of a table are taken where it lies; the numbers of a caller go to where the items are.
  queries = rows ? takeRows(job, queries, *rows) : copyTo(asQueries(queries, items.cols()), items.device());
  TopkResult found =
      topk(job, std::move(queries), std::move(items), std::move(itemNorms), k, metric, std::move(filter));
  return {{found.ids}, {found.scores}};
}

void requireFinite(Job& job, Tensor vectors) {
  expectFloats(vectors, "vectors");
  expectFinite(vectors, "vectors", job.exec());
  job.checkCancelled();
}

TopkResult topkQueued(Stream& stream, Tensor queries, Tensor items, int64_t k, Metric metric, Filter filter) {
  // What can be told without waiting for the operations that compute these tensors; topk() checks the rest.
  require(queries.dtype == DType::float32, ErrorCode::dtype, "queries: expected float32 but received ",
          std::string(text(queries.dtype)));
  require(items.dtype == DType::float32 || items.dtype == DType::float16 || items.dtype == DType::bfloat16,
          ErrorCode::dtype, "items: expected float32, float16 or bfloat16 but received ",
          std::string(text(items.dtype)));
  for (const auto& [t, name] : {std::pair{&queries, "queries"}, std::pair{&items, "items"}}) {
    require(t->rank() == 2, ErrorCode::shape, name, ": expected 2 dimensions but received shape ", text(t->shape));
  }
  require(queries.cols() == items.cols(), ErrorCode::shape, "queries: expected ", items.cols(),
          " columns, as many as items, but received ", queries.cols());
  require(k >= 1 && k <= items.rows(), ErrorCode::range, "k: expected 1 to ", items.rows(),
          " (the number of items) but received ", k);
  expectSameDevice(queries, "queries", items, "items");
  TopkResult out{Tensor::host<int32_t>({queries.rows(), k}), Tensor::host<float>({queries.rows(), k})};
  out.ids.pending = out.scores.pending = stream.enqueue([=](const Exec& exec) {
    Job job(exec.priority);
    const TopkResult found = topk(job, queries, items, std::nullopt, k, metric, filter);
    std::copy_n(found.ids.data<int32_t>(), found.ids.count(), out.ids.data<int32_t>());
    std::copy_n(found.scores.data<float>(), found.scores.count(), out.scores.data<float>());
  });
  return out;
}

}  // namespace ops
}  // namespace topknot
