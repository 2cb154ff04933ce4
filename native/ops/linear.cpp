#include "ops/linear.h"

#include <algorithm>
#include <cmath>

#include "backend/memory.h"
#include "backend/registry.h"
#include "models/placed.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

constexpr int64_t scoresAtOnce = 1 << 24;  // 64 MB

Device deviceOf(const LinearWeights& w) { return w.sparse ? w.sparse->values.device() : w.dense->device(); }

void check(const LinearWeights& w, const Csr& queries) {
  require(w.sparse.has_value() != w.dense.has_value(), ErrorCode::argument,
          "weights: expected either sparse or dense ones");
  if (w.sparse) {
    expectCsr(*w.sparse, "weights.sparse");
    expectSameDevice(w.sparse->indptr, "weights.sparse.indptr", w.sparse->values, "weights.sparse.values");
    expectSameDevice(w.sparse->indices, "weights.sparse.indices", w.sparse->values, "weights.sparse.values");
  }
  if (w.dense) expect(*w.dense, "weights.dense", DType::float32, 2);
  expectOnHost(queries, "queries");
  expectCsr(queries, "queries");
  require(queries.cols == w.rows(), ErrorCode::shape, "queries: expected ", w.rows(),
          " columns, one for each row of weights, but received ", queries.cols);
}

void expectRows(const Tensor& rows, const char* name, int64_t limit) {
  expectOnHost(rows, name);
  expect(rows, name, DType::int32, 1);
  for (const int32_t row : rows.span<int32_t>()) {
    require(row >= 0 && row < limit, ErrorCode::range, name, ": expected rows in 0 to ", limit - 1, " but received ",
            row);
  }
}

/// The rows [begin, begin + count) of what is asked: their numbers, where they are given.
Tensor slice(const Tensor& rows, int64_t begin, int64_t count) {
  const Tensor part = Tensor::host<int32_t>({count});
  std::copy_n(rows.data<int32_t>() + begin, count, part.data<int32_t>());
  return part;
}

Tensor numbers(int64_t count) {
  const Tensor all = Tensor::host<int32_t>({count});
  for (int64_t i = 0; i < count; ++i) all.data<int32_t>()[i] = static_cast<int32_t>(i);
  return all;
}

/// Scores of the queries `rows`, [rows, items], where the weights are.
Tensor scoresOf(Job& job, Csr queries, const Tensor& rows, const LinearWeights& w) {
  const Device device = deviceOf(w);
  const Tensor out = empty<float>(device, {rows.count(), w.items()});
  const int32_t* ids = rows.data<int32_t>();
  if (device.kind != Device::cpu) {
    queries = copyTo(ops::csrTakeRows(job, queries, rows), device);  // all others need not travel
    ids = nullptr;
  }
  if (w.sparse) {
    run(device, &Backend::spgemm, "spgemm", job.exec(),
        SpgemmArgs{queries.view(), ids, rows.count(), w.sparse->view(), out.data<float>()});
  } else {
    run(device, &Backend::spmm, "spmm", job.exec(),
        SpmmArgs{queries.view(), ids, rows.count(), w.dense->data<float>(), w.items(), w.items(), out.data<float>(),
                 w.items()});
  }
  job.checkCancelled();
  return out;
}

/// W_ij.
double weightAt(const LinearWeights& w, int64_t i, int64_t j) {
  if (w.dense) return static_cast<double>(w.dense->data<float>()[i * w.items() + j]);
  const CsrView v = w.sparse->view();
  const int32_t *begin = v.indices + v.indptr[i], *end = v.indices + v.indptr[i + 1];
  const int32_t* at = std::lower_bound(begin, end, static_cast<int32_t>(j));
  return at != end && *at == j ? static_cast<double>(v.values[at - v.indices]) : 0;
}

}  // namespace

namespace ops {

Tensor linearScores(Job& job, Csr queries, std::optional<Tensor> rows, LinearWeights weights) {
  check(weights, queries);
  if (rows) expectRows(*rows, "rows", queries.rows());
  return scoresOf(job, queries, rows ? *rows : numbers(queries.rows()), weights);
}

SearchResult linearSearch(Job& job, Csr queries, std::optional<Tensor> rows, LinearWeights weights, int64_t k,
                          Filter filter) {
  check(weights, queries);
  if (rows) expectRows(*rows, "rows", queries.rows());
  const Tensor asked = rows ? *rows : numbers(queries.rows());
  const int64_t count = asked.count();
  if (filter.seen && !filter.seenRows) filter.seenRows = numbers(count);
  const std::optional<Tensor> seenRows = filter.seenRows;
  if (seenRows) {
    expectOnHost(*seenRows, "filter.seenRows");
    expect(*seenRows, "filter.seenRows", DType::int32, 1);
    require(seenRows->count() == count, ErrorCode::shape, "filter.seenRows: expected ", count,
            " rows, one for each query, but received ", seenRows->count());
  }
  require(k >= 1 && k <= weights.items(), ErrorCode::range, "k: expected 1 to ", weights.items(),
          " (the number of items) but received ", k);

  const SearchResult out{{Tensor::host<int32_t>({count, k})}, {Tensor::host<float>({count, k})}};
  const int64_t block = std::max<int64_t>(1, scoresAtOnce / std::max<int64_t>(weights.items(), 1));
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t n = std::min(block, count - begin);
    const Tensor scores = scoresOf(job, queries, slice(asked, begin, n), weights);
    if (seenRows) filter.seenRows = slice(*seenRows, begin, n);
    const TopkResult best = selectTopk(job, scores, k, filter);
    std::copy_n(best.ids.data<int32_t>(), n * k, out.ids.tensor.data<int32_t>() + begin * k);
    std::copy_n(best.scores.data<float>(), n * k, out.scores.tensor.data<float>() + begin * k);
  }
  return out;
}

Tensor linearPairScores(Job& job, Csr queries, LinearWeights weights, Tensor userIds, Tensor itemIds) {
  check(weights, queries);
  expectRows(userIds, "userIds", queries.rows());
  expectRows(itemIds, "itemIds", weights.items());
  require(userIds.count() == itemIds.count(), ErrorCode::shape, "itemIds: expected ", userIds.count(),
          " ids, as many as userIds, but received ", itemIds.count());
  const Tensor out = Tensor::host<float>({userIds.count()});
  const CsrView q = queries.view();
  parallelFor(userIds.count(), 256, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t user = userIds.data<int32_t>()[p], item = itemIds.data<int32_t>()[p];
      double sum = 0;
      for (int64_t e = q.indptr[user]; e < q.indptr[user + 1]; ++e) {
        sum += static_cast<double>(q.values[e]) * weightAt(weights, q.indices[e], item);
      }
      out.data<float>()[p] = static_cast<float>(sum);
    }
  });
  job.checkCancelled();
  return out;
}

Tensor linearContributions(Job& job, Csr query, LinearWeights weights, int64_t item) {
  check(weights, query);
  require(query.rows() == 1, ErrorCode::shape, "query: expected one row but received ", query.rows());
  require(item >= 0 && item < weights.items(), ErrorCode::range, "item: expected an item in 0 to ", weights.items() - 1,
          " but received ", item);
  job.checkCancelled();
  const Tensor out = Tensor::host<float>({query.nnz()});
  for (int64_t e = 0; e < query.nnz(); ++e) {
    out.data<float>()[e] = static_cast<float>(static_cast<double>(query.values.data<float>()[e]) *
                                              weightAt(weights, query.indices.data<int32_t>()[e], item));
  }
  return out;
}

}  // namespace ops
}  // namespace topknot
