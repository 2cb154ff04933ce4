// The exact index: a search over its segments, and making segments.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "backend/registry.h"
#include "cpu/kernels/candidates.h"
#include "ops/ops.h"
#include "ops/topk_checks.h"

namespace topknot {
namespace {

TopkResult answer(int64_t queries, int64_t k) {
  return {Tensor::host<int32_t>({queries, k}), Tensor::host<float>({queries, k})};
}

const Tensor& expectNorms(const IndexSegment& s) {
  require(s.norms.has_value(), ErrorCode::argument, "segments.norms: expected the squared length of each vector");
  expect(*s.norms, "segments.norms", DType::float32, 1);
  require(s.norms->rows() == s.vectors.rows(), ErrorCode::shape, "segments.norms: expected ", s.vectors.rows(),
          " squared lengths but received ", s.norms->rows());
  return *s.norms;
}

TopkResult searchBits(Job& job, const Tensor& queries, const IndexSegment& s, int64_t k) {
  expect(queries, "queries", DType::uint8, 2);
  expect(s.vectors, "segments.vectors", DType::uint8, 2);
  require(queries.cols() == s.vectors.cols() && queries.cols() >= 1, ErrorCode::shape, "queries: expected ",
          s.vectors.cols(), " bytes for each query but received ", queries.cols());
  TopkResult found = answer(queries.rows(), k);
  const TopkBinaryArgs args{.queries = queries.data<uint8_t>(),
                            .items = s.vectors.data<uint8_t>(),
                            .queryCount = queries.rows(),
                            .rows = s.vectors.rows(),
                            .cols = s.vectors.cols(),
                            .k = k,
                            .filter = checked({s.allowed, {}, {}}, queries.rows(), s.vectors.rows()),
                            .ids = found.ids.data<int32_t>(),
                            .scores = found.scores.data<float>()};
  run(s.vectors.device(), &Backend::topkBinary, "topkBinary", job.exec(), args);
  job.checkCancelled();
  return found;
}

/// Searches again, without codes, for the queries that nothing was proven of.
void searchUnproven(Job& job, const Tensor& queries, const IndexSegment& s, int64_t k, Metric metric,
                    const Tensor& proven, TopkResult& found) {
  std::vector<int32_t> rows;
  for (int64_t q = 0; q < queries.rows(); ++q) {
    if (!proven.data<uint8_t>()[q]) rows.push_back(static_cast<int32_t>(q));
  }
  if (rows.empty()) return;
  Tensor list = Tensor::host<int32_t>({static_cast<int64_t>(rows.size())});
  std::copy(rows.begin(), rows.end(), list.data<int32_t>());
  const TopkResult again =
      ops::topk(job, ops::takeRows(job, queries, list), s.vectors, s.norms, k, metric, {s.allowed, {}, {}});
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(again.ids.data<int32_t>() + i * k, k, found.ids.data<int32_t>() + rows[i] * k);
    std::copy_n(again.scores.data<float>() + i * k, k, found.scores.data<float>() + rows[i] * k);
  }
}

/// `proven` becomes 0 for the queries that had to be searched for without codes.
TopkResult searchCodes(Job& job, const Tensor& queries, const IndexSegment& s, int64_t k,
                       const IndexSearchOptions& options, Tensor* proven) {
  expectMatching(queries, "queries", s.vectors, true);
  expectFinite(queries, "queries");
  expect(s.codes->codes, "segments.codes", DType::uint8, 2);
  expect(s.codes->scales, "segments.scales", DType::float32, 1);
  expect(s.codes->residuals, "segments.residuals", DType::float32, 1);
  require(s.codes->codes.shape == s.vectors.shape && s.codes->scales.rows() == s.vectors.rows() &&
              s.codes->residuals.rows() == s.vectors.rows(),
          ErrorCode::shape, "segments.codes: expected codes of shape ", text(s.vectors.shape),
          ", as the vectors have, but received ", text(s.codes->codes.shape));
  TopkResult found = answer(queries.rows(), k);
  const int64_t rows = s.vectors.rows();
  const TopkInt8Args args{.topk = {.queries = matrix(queries),
                                   .items = floatMatrix(s.vectors),
                                   .k = k,
                                   .metric = options.metric,
                                   .itemNorms = expectNorms(s).data<float>(),
                                   .filter = checked({s.allowed, {}, {}}, queries.rows(), rows),
                                   .ids = found.ids.data<int32_t>(),
                                   .scores = found.scores.data<float>()},
                          .codes = s.codes->codes.data<uint8_t>(),
                          .scales = s.codes->scales.data<float>(),
                          .residuals = s.codes->residuals.data<float>(),
                          .candidates = options.rescore < rows / k ? options.rescore * k : rows,
                          .proven = proven ? proven->data<uint8_t>() : nullptr};
  run(s.vectors.device(), &Backend::topkInt8, "topkInt8", job.exec(), args);
  job.checkCancelled();
  if (proven) searchUnproven(job, queries, s, k, options.metric, *proven, found);
  return found;
}

/// The k best of the answers of all segments.
TopkResult merged(const std::vector<TopkResult>& parts, const std::vector<int64_t>& firstRows, int64_t queries,
                  int64_t k, bool rising) {
  TopkResult out = answer(queries, k);
  std::vector<Key> keys;
  for (int64_t q = 0; q < queries; ++q) {
    keys.clear();
    for (size_t s = 0; s < parts.size(); ++s) {
      const int64_t width = parts[s].ids.cols();
      for (int64_t j = q * width; j < (q + 1) * width; ++j) {
        const int32_t id = parts[s].ids.data<int32_t>()[j];
        const float score = parts[s].scores.data<float>()[j];
        if (id >= 0) keys.push_back(keyOf(rising ? -score : score, static_cast<int32_t>(firstRows[s] + id)));
      }
    }
    sortBestFirst(keys);
    keys.resize(std::min<size_t>(keys.size(), k));
    float* scores = out.scores.data<float>() + q * k;
    writeBest(keys, k, out.ids.data<int32_t>() + q * k, scores);
    if (rising) {
      for (int64_t j = 0; j < k; ++j) scores[j] = 0 - scores[j];
    }
  }
  return out;
}

}  // namespace

namespace ops {

IndexSearchResult indexSearch(Job& job, Tensor queries, std::vector<IndexSegment> segments,
                              IndexSearchOptions options) {
  require(!segments.empty(), ErrorCode::shape, "segments: expected at least one");
  require(options.rescore >= 1, ErrorCode::range, "rescore: expected at least 1 but received ", options.rescore);
  int64_t rows = 0;
  std::vector<int64_t> firstRows;
  for (const IndexSegment& s : segments) {
    require(s.vectors.rank() == 2 && s.vectors.rows() > 0, ErrorCode::shape,
            "segments.vectors: expected a matrix but received shape ", text(s.vectors.shape));
    firstRows.push_back(rows);
    rows += s.vectors.rows();
  }
  require(rows <= INT32_MAX, ErrorCode::range, "segments: expected at most 2147483647 rows but received ", rows);
  require(options.k >= 1 && options.k <= rows, ErrorCode::range, "k: expected 1 to ", rows, " but received ",
          options.k);
  const int64_t width = segments[0].vectors.cols();
  if (queries.rank() == 1 && width > 0) {  // vectors from JavaScript come flat
    require(queries.count() % width == 0, ErrorCode::shape, "queries: expected ", width,
            " numbers for each query but received ", queries.count());
    queries.shape = Shape{queries.count() / width, width};
  }
  const bool bits = segments[0].vectors.dtype == DType::uint8;
  Tensor proven = Tensor::host<uint8_t>({queries.rank() > 0 ? queries.rows() : 0});
  std::vector<char> unproven(static_cast<size_t>(proven.count()));
  std::vector<TopkResult> parts;
  for (const IndexSegment& s : segments) {
    const int64_t k = std::min(options.k, s.vectors.rows());
    if (bits) {
      parts.push_back(searchBits(job, queries, s, k));
    } else if (!s.codes) {
      parts.push_back(topk(job, queries, s.vectors, s.norms, k, options.metric, {s.allowed, {}, {}}));
    } else {
      parts.push_back(searchCodes(job, queries, s, k, options, options.exact ? &proven : nullptr));
      for (int64_t q = 0; options.exact && q < proven.count(); ++q) unproven[q] |= !proven.data<uint8_t>()[q];
    }
  }
  const bool rising = bits || options.metric == Metric::l2;
  const TopkResult found = parts.size() == 1 ? parts[0] : merged(parts, firstRows, queries.rows(), options.k, rising);
  const bool counted = options.exact && segments[0].codes;
  const int64_t fallbacks = counted ? std::count(unproven.begin(), unproven.end(), 1) : 0;
  return {{found.ids}, {found.scores}, counted ? queries.rows() - fallbacks : 0, fallbacks};
}

Int8Codes int8Codes(Job& job, Tensor vectors, bool unit) {
  expectFloats(vectors, "vectors");
  require(vectors.cols() >= 1, ErrorCode::shape, "vectors: expected at least one column");
  require(vectors.cols() <= 1 << 17, ErrorCode::shape,
          "vectors: expected at most 131072 columns under storage 'int8', whose sums "
          "are 32-bit, but received ",
          vectors.cols());
  const int64_t rows = vectors.rows();
  Int8Codes out{Tensor::host<uint8_t>(vectors.shape), Tensor::host<float>({rows}), Tensor::host<float>({rows})};
  const Int8CodesArgs args{.items = floatMatrix(vectors),
                           .unit = unit,
                           .codes = out.codes.data<uint8_t>(),
                           .scales = out.scales.data<float>(),
                           .residuals = out.residuals.data<float>()};
  run(vectors.device(), &Backend::int8Codes, "int8Codes", job.exec(), args);
  job.checkCancelled();
  return out;
}

Tensor keepRows(Job& job, std::vector<Tensor> parts, std::vector<std::optional<Tensor>> kept) {
  require(!parts.empty() && parts.size() == kept.size(), ErrorCode::shape,
          "kept: expected a bitmap or undefined for each of ", parts.size(), " parts but received ", kept.size());
  const Tensor& first = parts[0];
  struct Run {  // of adjacent rows that stay together
    const char* from;
    int64_t to, bytes;
  };
  int64_t rows = 0;
  std::vector<Run> runs;
  const int64_t width = first.rank() == 2 ? first.cols() : 1;
  const int64_t bytes = width * static_cast<int64_t>(sizeOf(first.dtype));
  for (size_t p = 0; p < parts.size(); ++p) {
    expect(parts[p], "parts", first.dtype, first.rank());
    require(first.rank() == 1 || (first.rank() == 2 && parts[p].cols() == width), ErrorCode::shape,
            "parts: expected vectors or matrices of ", width, " columns but received shape ", text(parts[p].shape));
    const FilterView filter = checked({kept[p], {}, {}}, 0, parts[p].rows());
    for (int64_t i = 0; i < parts[p].rows();) {
      const auto keeps = [&](int64_t r) { return !filter.allowed || (filter.allowed[r / 64] >> (r % 64) & 1); };
      int64_t end = i;
      while (end < parts[p].rows() && end - i < 4096 && keeps(end)) ++end;
      if (end > i) {
        runs.push_back({parts[p].data<char>() + i * bytes, rows * bytes, (end - i) * bytes});
        rows += end - i;
      }
      i = std::max(end, i + 1);
    }
  }
  Tensor out = Tensor::host(first.dtype, first.rank() == 2 ? Shape{rows, width} : Shape{rows});
  parallelFor(static_cast<int64_t>(runs.size()), 64, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) std::memcpy(out.data<char>() + runs[r].to, runs[r].from, runs[r].bytes);
  });
  job.checkCancelled();
  return out;
}

}  // namespace ops
}  // namespace topknot
