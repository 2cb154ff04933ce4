// Search: the k best items for each query, and the scores and ranks that evaluation needs.
#include <algorithm>
#include <cstdint>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/ops.h"
#include "ops/queued.h"
#include "ops/topk_checks.h"

namespace topknot {

MatrixView matrix(const Tensor& t) { return {t.data<float>(), t.rows(), t.cols()}; }

FloatMatrixView floatMatrix(const Tensor& t) {
  const FloatType type = t.dtype == DType::float32   ? FloatType::float32
                         : t.dtype == DType::float16 ? FloatType::float16
                                                     : FloatType::bfloat16;
  return {t.buffer->data(), type, t.rows(), t.cols()};
}

void expectFloats(const Tensor& t, const char* name) {
  require(t.dtype == DType::float32 || t.dtype == DType::float16 || t.dtype == DType::bfloat16, ErrorCode::dtype, name,
          ": expected float32, float16 or bfloat16 but received ", std::string(text(t.dtype)));
  expect(t, name, t.dtype, 2);
}

void expectFinite(const Tensor& t, const char* name, const Exec& exec) {
  const Device device = t.device();
  const Tensor first = empty<int64_t>(device, {1});
  const FloatType type = floatMatrix(t).type;
  run(device, &Backend::firstNotFinite, "firstNotFinite", exec,
      FirstNotFiniteArgs{t.buffer->data(), type, t.count(), first.data<int64_t>()});
  const int64_t at = numberAt<int64_t>(first, 0);
  if (at == t.count()) return;
  const float x = type == FloatType::float32   ? numberAt<float>(t, at)
                  : type == FloatType::float16 ? toFloat(numberAt<Float16>(t, at))
                                               : toFloat(numberAt<BFloat16>(t, at));
  fail(ErrorCode::value, name, ": expected finite numbers but row ", at / t.cols(), " holds ", x);
}

void expectMatching(const Tensor& queries, const char* queriesName, const Tensor& items, bool half) {
  expect(queries, queriesName, DType::float32, 2);
  if (half) {
    expectFloats(items, "items");
  } else {
    expect(items, "items", DType::float32, 2);
  }
  if (items.cols() < 1) {
    fail(ErrorCode::shape, "items: expected at least one column but received shape ", text(items.shape));
  }
  require(items.rows() <= INT32_MAX, ErrorCode::range, "items: expected at most 2147483647 rows but received ",
          items.rows());
  require(queries.cols() == items.cols(), ErrorCode::shape, queriesName, ": expected ", items.cols(),
          " columns, as many as items, but received ", queries.cols());
  expectSameDevice(queries, queriesName, items, "items");
}

void expectK(int64_t k, int64_t items) {
  require(k >= 1 && k <= items, ErrorCode::range, "k: expected 1 to ", items, " (the number of items) but received ",
          k);
}

namespace {

void expectIds(const Tensor& ids, const char* name, int64_t limit, const char* limitName) {
  expect(ids, name, DType::int32, 1);
  for (int64_t i = 0; i < ids.count(); ++i) {
    const int32_t id = ids.data<int32_t>()[i];
    require(id >= 0 && id < limit, ErrorCode::range, name, ": expected ids in 0 to ", limit - 1, " (", limitName,
            ") but entry ", i, " is ", id);
  }
}

/// The two halves of a piece of memory.
TopkResult halves(const Tensor& piece) {
  const size_t bytes = piece.bytes() / 2;
  const auto half = [&](DType dtype, size_t skipped) {
    Tensor out{.dtype = dtype, .shape = {piece.rows() / 2, piece.cols()}};
    constexpr bool counted = true;  // with the piece
    out.buffer = std::make_shared<Buffer>(piece.data<char>() + skipped, bytes, piece.device(), piece.buffer, counted);
    return out;
  };
  return {half(DType::int32, 0), half(DType::float32, bytes)};
}

}  // namespace

TopkAnswer::TopkAnswer(Device device, int64_t queries, int64_t k) {
  if (device.kind == Device::cpu) {
    found_ = {Tensor::host<int32_t>({queries, k}), Tensor::host<float>({queries, k})};
    return;
  }
  piece_ = empty<float>(device, {2 * queries, k});
  found_ = halves(piece_);
}

TopkResult TopkAnswer::onHost() const { return piece_.buffer ? halves(copyTo(piece_, Device{})) : found_; }

FilterView checked(const Filter& filter, int64_t queries, int64_t items) {
  FilterView view;
  if (filter.allowed) {
    const int64_t words = (items + 63) / 64;
    expectOnHost(*filter.allowed, "filter.allowed");
    expect(*filter.allowed, "filter.allowed", DType::int64, 1);
    require(filter.allowed->rows() == words, ErrorCode::shape, "filter.allowed: expected ", words,
            " words of 64 bits, one bit for each of ", items, " items, but received ", filter.allowed->rows());
    view.allowed = reinterpret_cast<const uint64_t*>(filter.allowed->data<int64_t>());
  }
  require(filter.seen || !filter.seenRows, ErrorCode::argument,
          "filter.seenRows: expected together with filter.seen but received alone");
  if (!filter.seen) return view;
  expectOnHost(filter.seen->indptr, "filter.seen.indptr");
  expectOnHost(filter.seen->indices, "filter.seen.indices");
  expectOnHost(filter.seen->values, "filter.seen.values");
  expectCsr(*filter.seen, "filter.seen");
  require(filter.seen->cols == items, ErrorCode::shape, "filter.seen: expected ", items,
          " columns, one for each item, but received ", filter.seen->cols);
  view.seenPtr = filter.seen->indptr.data<int64_t>();
  view.seenIds = filter.seen->indices.data<int32_t>();
  const int64_t rows = filter.seenRows ? filter.seenRows->count() : filter.seen->rows();
  require(rows == queries, ErrorCode::shape, filter.seenRows ? "filter.seenRows" : "filter.seen", ": expected ",
          queries, " rows, one for each query, but received ", rows);
  if (filter.seenRows) {
    expectOnHost(*filter.seenRows, "filter.seenRows");
    expectIds(*filter.seenRows, "filter.seenRows", filter.seen->rows(), "the rows of filter.seen");
    view.seenRows = filter.seenRows->data<int32_t>();
  }
  return view;
}

/// The ids of the given rows of a matrix, one row after the other; the values stay those of `seen`.
static Csr seenBy(const Csr& seen, const Tensor& rows) {
  Csr out{Tensor::host<int64_t>({rows.count() + 1}), {}, seen.values, seen.cols};
  const CsrView from = seen.view();
  int64_t* ptr = out.indptr.data<int64_t>();
  ptr[0] = 0;
  for (int64_t q = 0; q < rows.count(); ++q) {
    const int32_t row = rows.data<int32_t>()[q];
    ptr[q + 1] = ptr[q] + from.indptr[row + 1] - from.indptr[row];
  }
  out.indices = Tensor::host<int32_t>({ptr[rows.count()]});
  for (int64_t q = 0; q < rows.count(); ++q) {
    const int32_t* ids = from.indices + from.indptr[rows.data<int32_t>()[q]];
    std::copy_n(ids, ptr[q + 1] - ptr[q], out.indices.data<int32_t>() + ptr[q]);
  }
  return out;
}

FilterView checked(Filter& filter, int64_t queries, int64_t items, Device device) {
  FilterView view = checked(filter, queries, items);
  if (filter.allowed) {
    filter.allowed = copyTo(*filter.allowed, device);
    view.allowed = reinterpret_cast<const uint64_t*>(filter.allowed->data<int64_t>());
  }
  if (filter.seen && device.kind != Device::cpu) {
    if (filter.seenRows) filter.seen = seenBy(*filter.seen, *filter.seenRows);  // all others need not travel
    filter.seenRows.reset();
    filter.seen->indptr = copyTo(filter.seen->indptr, device);
    filter.seen->indices = copyTo(filter.seen->indices, device);
    view.seenPtr = filter.seen->indptr.data<int64_t>();
    view.seenIds = filter.seen->indices.data<int32_t>();
    view.seenRows = nullptr;
  }
  return view;
}

TopkResult topkOfFinite(Job& job, const Tensor& queries, const Tensor& items, std::optional<Tensor> itemNorms,
                        int64_t k, Metric metric, Filter filter) {
  expectMatching(queries, "queries", items, true);
  expectK(k, items.rows());
  const Device device = items.device();
  const FilterView filterView = checked(filter, queries.rows(), items.rows(), device);
  if (metric != Metric::innerProduct) {
    if (!itemNorms) itemNorms = ops::squaredNorms(job, items);
    expect(*itemNorms, "itemNorms", DType::float32, 1);
    expectSameDevice(*itemNorms, "itemNorms", items, "items");
    require(itemNorms->rows() == items.rows(), ErrorCode::shape, "itemNorms: expected ", items.rows(),
            " squared lengths, one for each item, but received ", itemNorms->rows());
  }
  const TopkAnswer answer(device, queries.rows(), k);
  const TopkArgs args{.queries = matrix(queries),
                      .items = floatMatrix(items),
                      .k = k,
                      .metric = metric,
                      .itemNorms = itemNorms ? itemNorms->data<float>() : nullptr,
                      .filter = filterView,
                      .ids = answer.ids(),
                      .scores = answer.scores()};
  run(items.device(), &Backend::topk, "topk", job.exec(), args);
  job.checkCancelled();
  return answer.onHost();
}

namespace ops {

TopkResult topk(Job& job, Tensor queries, Tensor items, std::optional<Tensor> itemNorms, int64_t k, Metric metric,
                Filter filter) {
  expectMatching(queries, "queries", items, true);
  expectFinite(queries, "queries");
  return topkOfFinite(job, queries, items, std::move(itemNorms), k, metric, std::move(filter));
}

TopkResult selectTopk(Job& job, Tensor scores, int64_t k, Filter filter) {
  expect(scores, "scores", DType::float32, 2);
  require(scores.cols() <= INT32_MAX, ErrorCode::range, "scores: expected at most 2147483647 columns but received ",
          scores.cols());
  expectK(k, scores.cols());
  const Device device = scores.device();
  const FilterView filterView = checked(filter, scores.rows(), scores.cols(), device);
  const TopkAnswer answer(device, scores.rows(), k);
  const SelectTopkArgs args{
      .scores = matrix(scores), .k = k, .filter = filterView, .ids = answer.ids(), .out = answer.scores()};
  run(scores.device(), &Backend::selectTopk, "selectTopk", job.exec(), args);
  job.checkCancelled();
  return answer.onHost();
}

Tensor squaredNorms(Job& job, Tensor items) {
  expectFloats(items, "items");
  Tensor norms = empty<float>(items.device(), {items.rows()});
  const SquaredNormsArgs args{floatMatrix(items), norms.data<float>()};
  run(items.device(), &Backend::squaredNorms, "squaredNorms", job.exec(), args);
  job.checkCancelled();
  return norms;
}

RankCounts rankCounts(Job& job, Tensor queries, Tensor items, Csr positives, Filter filter) {
  expectMatching(queries, "queries", items);
  expectFinite(queries, "queries");
  expectOnHost(positives, "positives");
  expectCsr(positives, "positives");
  require(positives.rows() == queries.rows() && positives.cols == items.rows(), ErrorCode::shape,
          "positives: expected shape [", queries.rows(), ", ", items.rows(), "] (queries, items) but received [",
          positives.rows(), ", ", positives.cols, "]");
  const Device device = items.device();
  const FilterView filterView = checked(filter, queries.rows(), items.rows(), device);
  positives.indptr = copyTo(positives.indptr, device);
  positives.indices = copyTo(positives.indices, device);
  const RankCounts counts{empty<int32_t>(device, {positives.nnz()}), empty<int32_t>(device, {positives.nnz()})};
  const RankCountsArgs args{.queries = matrix(queries),
                            .items = matrix(items),
                            .positives = positives.view(),
                            .filter = filterView,
                            .above = counts.above.data<int32_t>(),
                            .equal = counts.equal.data<int32_t>()};
  run(device, &Backend::rankCounts, "rankCounts", job.exec(), args);
  job.checkCancelled();
  return {copyTo(counts.above, Device{}), copyTo(counts.equal, Device{})};
}

Tensor pairScores(Job& job, Tensor users, Tensor items, Tensor userIds, Tensor itemIds) {
  expectMatching(users, "users", items);
  expectOnHost(userIds, "userIds");
  expectOnHost(itemIds, "itemIds");
  expectIds(userIds, "userIds", users.rows(), "the rows of users");
  expectIds(itemIds, "itemIds", items.rows(), "the rows of items");
  require(userIds.count() == itemIds.count(), ErrorCode::shape, "itemIds: expected ", userIds.count(),
          " ids, as many as userIds, but received ", itemIds.count());
  const Device device = items.device();
  userIds = copyTo(userIds, device);
  itemIds = copyTo(itemIds, device);
  const Tensor scores = empty<float>(device, {userIds.count()});
  const PairScoresArgs args{.users = matrix(users),
                            .items = matrix(items),
                            .userIds = userIds.data<int32_t>(),
                            .itemIds = itemIds.data<int32_t>(),
                            .count = userIds.count(),
                            .out = scores.data<float>()};
  run(device, &Backend::pairScores, "pairScores", job.exec(), args);
  job.checkCancelled();
  return copyTo(scores, Device{});
}

}  // namespace ops
}  // namespace topknot
