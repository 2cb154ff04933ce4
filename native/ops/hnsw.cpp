// Approximate search: checks of arguments in front of HnswIndex.
#include <cmath>

#include "ops/hnsw_index.h"
#include "ops/ops.h"

namespace topknot {
namespace {

void expectOptions(const HnswOptions& o) {
  require(o.connectivity >= 2 && o.connectivity <= 1024, ErrorCode::range,
          "connectivity: expected 2 to 1024 but received ", o.connectivity);
  require(o.expansionAdd >= 1 && o.expansionAdd <= 65536, ErrorCode::range,
          "expansionAdd: expected 1 to 65536 but received ", o.expansionAdd);
}

std::span<const int32_t> keysIn(const Tensor& t, const char* name) {
  expect(t, name, DType::int32, 1);
  return t.span<const int32_t>();
}

/// Vectors from JavaScript come flat: one query, or as many as fit the width.
Tensor asRows(Tensor t, const char* name, int64_t width) {
  if (t.rank() == 1) {
    require(t.count() % width == 0, ErrorCode::shape, name, ": expected ", width, " numbers for each but received ",
            t.count());
    t.shape = Shape{t.count() / width, width};
  }
  expect(t, name, DType::float32, 2);
  require(t.cols() == width, ErrorCode::shape, name, ": expected ", width, " columns but received ", t.cols());
  return t;
}

}  // namespace

namespace ops {

bool hnswAvailable() { return hasHnsw(); }

Hnsw hnswBuild(Job& job, Tensor vectors, HnswOptions options, bool parallel) {
  expectOptions(options);
  requireFinite(job, vectors);
  require(vectors.cols() >= 1, ErrorCode::shape, "vectors: expected at least one column");
  const auto index = std::make_shared<HnswIndex>(options, vectors.cols());
  std::vector<int32_t> keys(static_cast<size_t>(vectors.rows()));
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = static_cast<int32_t>(i);
  index->change(job, {}, keys, vectors, parallel);
  return index;
}

void hnswChange(Job& job, Hnsw index, Tensor removed, Tensor keys, Tensor vectors, bool parallel) {
  vectors = asRows(std::move(vectors), "vectors", index->dims());
  const std::span<const int32_t> names = keysIn(keys, "keys");
  require(vectors.rows() == keys.count(), ErrorCode::shape, "vectors: expected ", keys.count(),
          " rows, one for each key, but received ", vectors.rows());
  for (int32_t key : names) require(key >= 0, ErrorCode::range, "keys: expected 0 or more but received ", key);
  requireFinite(job, vectors);
  index->change(job, keysIn(removed, "removed"), names, vectors, parallel);
}

HnswFound hnswSearch(Job& job, Hnsw index, Tensor queries, int64_t k, int64_t expansion,
                     std::optional<Tensor> allowed) {
  queries = asRows(std::move(queries), "queries", index->dims());
  require(k >= 1 && k <= INT32_MAX, ErrorCode::range, "k: expected 1 or more but received ", k);
  require(expansion >= 0 && expansion <= 1 << 20, ErrorCode::range,
          "expansionSearch: expected 0 to 1048576 but received ", expansion);
  for (int64_t i = 0; i < queries.count(); ++i) {
    require(std::isfinite(queries.data<float>()[i]), ErrorCode::value, "queries: expected finite numbers but row ",
            i / queries.cols(), " holds ", queries.data<float>()[i]);
  }
  if (allowed) expect(*allowed, "filter.allowed", DType::int64, 1);
  return index->search(job, queries, k, expansion, allowed);
}

HnswCounts hnswCounts(Hnsw index) { return index->counts(); }

HnswState hnswState(Job& job, Hnsw index) { return index->state(job); }

Hnsw hnswCompact(Job& job, Hnsw index, bool parallel) { return index->compacted(job, parallel); }

HnswLoaded hnswLoad(Job& job, HnswState state, HnswOptions options, bool mapped) {
  expectOptions(options);
  require(state.dimensions >= 1 && state.dimensions <= 1 << 30, ErrorCode::format,
          "dimensions: expected 1 or more but received ", state.dimensions);
  require(std::isfinite(state.bound) && state.bound >= 0, ErrorCode::format, "bound: expected 0 or more but received ",
          state.bound);
  const auto index = std::make_shared<HnswIndex>(job, options, state, mapped);
  return {index, index->live()};
}

}  // namespace ops
}  // namespace topknot
