// A search of the exact index: of each of its segments on the device that it is to run on, and one answer from all.
// What lies in host memory where a GPU is to search goes there block by block.
#include <algorithm>

#include "backend/block_stream.h"
#include "backend/memory.h"
#include "backend/registry.h"
#include "cpu/kernels/candidates.h"
#include "ops/ops.h"
#include "ops/queued.h"
#include "ops/topk_checks.h"

namespace topknot {
namespace {

/// The queries where they came and where they are searched.
struct Asked {
  Tensor host, placed;
  Device device() const { return placed.device(); }
  int64_t count() const { return placed.rows(); }
};

const Tensor& expectNorms(const IndexSegment& s) {
  require(s.norms.has_value(), ErrorCode::argument, "segments.norms: expected the squared length of each vector");
  expect(*s.norms, "segments.norms", DType::float32, 1);
  expectSameDevice(*s.norms, "segments.norms", s.vectors, "segments.vectors");
  require(s.norms->rows() == s.vectors.rows(), ErrorCode::shape, "segments.norms: expected ", s.vectors.rows(),
          " squared lengths but received ", s.norms->rows());
  return *s.norms;
}

TopkResult searchBits(Job& job, const Asked& queries, const IndexSegment& s, int64_t k) {
  expect(queries.placed, "queries", DType::uint8, 2);
  expect(s.vectors, "segments.vectors", DType::uint8, 2);
  require(queries.placed.cols() == s.vectors.cols() && queries.placed.cols() >= 1, ErrorCode::shape,
          "queries: expected ", s.vectors.cols(), " bytes for each query but received ", queries.placed.cols());
  const TopkAnswer answer(queries.device(), queries.count(), k);
  Filter filter{s.allowed, {}, {}};
  const TopkBinaryArgs args{.queries = queries.placed.data<uint8_t>(),
                            .items = s.vectors.data<uint8_t>(),
                            .queryCount = queries.count(),
                            .rows = s.vectors.rows(),
                            .cols = s.vectors.cols(),
                            .k = k,
                            .filter = checked(filter, queries.count(), s.vectors.rows(), queries.device()),
                            .ids = answer.ids(),
                            .scores = answer.scores()};
  run(queries.device(), &Backend::topkBinary, "topkBinary", job.exec(), args);
  job.checkCancelled();
  return answer.onHost();
}

/// Searches again, without codes, for the queries that nothing was proven of.
void searchUnproven(Job& job, const Asked& queries, const IndexSegment& s, int64_t k, Metric metric,
                    const Tensor& proven, TopkResult& found) {
  std::vector<int32_t> rows;
  for (int64_t q = 0; q < queries.count(); ++q) {
    if (!proven.data<uint8_t>()[q]) rows.push_back(static_cast<int32_t>(q));
  }
  if (rows.empty()) return;
  Tensor list = Tensor::host<int32_t>({static_cast<int64_t>(rows.size())});
  std::copy(rows.begin(), rows.end(), list.data<int32_t>());
  const Tensor left = copyTo(ops::takeRows(job, queries.host, list), queries.device());
  const TopkResult again = topkOfFinite(job, left, s.vectors, s.norms, k, metric, {s.allowed, {}, {}});
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(again.ids.data<int32_t>() + i * k, k, found.ids.data<int32_t>() + rows[i] * k);
    std::copy_n(again.scores.data<float>() + i * k, k, found.scores.data<float>() + rows[i] * k);
  }
}

/// unproven[q] becomes 1 for the queries that had to be searched for without codes, where options.exact.
TopkResult searchCodes(Job& job, const Asked& queries, const IndexSegment& s, int64_t k,
                       const IndexSearchOptions& options, std::vector<char>& unproven) {
  expectMatching(queries.placed, "queries", s.vectors, true);
  expect(s.codes->codes, "segments.codes", DType::uint8, 2);
  expect(s.codes->scales, "segments.scales", DType::float32, 1);
  expect(s.codes->residuals, "segments.residuals", DType::float32, 1);
  require(s.codes->codes.shape == s.vectors.shape && s.codes->scales.rows() == s.vectors.rows() &&
              s.codes->residuals.rows() == s.vectors.rows(),
          ErrorCode::shape, "segments.codes: expected codes of shape ", text(s.vectors.shape),
          ", as the vectors have, but received ", text(s.codes->codes.shape));
  for (const Tensor* t : {&s.codes->codes, &s.codes->scales, &s.codes->residuals}) {
    expectSameDevice(*t, "segments.codes", s.vectors, "segments.vectors");
  }
  const Device device = queries.device();
  const TopkAnswer answer(device, queries.count(), k);
  std::optional<Tensor> proven;
  if (options.exact) proven = empty<uint8_t>(device, {queries.count()});
  Filter filter{s.allowed, {}, {}};
  const int64_t rows = s.vectors.rows();
  const TopkInt8Args args{.topk = {.queries = matrix(queries.placed),
                                   .items = floatMatrix(s.vectors),
                                   .k = k,
                                   .metric = options.metric,
                                   .itemNorms = expectNorms(s).data<float>(),
                                   .filter = checked(filter, queries.count(), rows, device),
                                   .ids = answer.ids(),
                                   .scores = answer.scores()},
                          .codes = s.codes->codes.data<uint8_t>(),
                          .scales = s.codes->scales.data<float>(),
                          .residuals = s.codes->residuals.data<float>(),
                          .candidates = options.rescore < rows / k ? options.rescore * k : rows,
                          .proven = proven ? proven->data<uint8_t>() : nullptr};
  run(device, &Backend::topkInt8, "topkInt8", job.exec(), args);
  job.checkCancelled();
  TopkResult found = answer.onHost();
  if (!proven) return found;
  const Tensor told = copyTo(*proven, Device{});
  for (int64_t q = 0; q < queries.count(); ++q) unproven[q] |= !told.data<uint8_t>()[q];
  searchUnproven(job, queries, s, k, options.metric, told, found);
  return found;
}

/// The k best of the answers of several runs of rows, which start at firstRows.
TopkResult merged(const std::vector<TopkResult>& parts, const std::vector<int64_t>& firstRows, int64_t queries,
                  int64_t k, bool rising) {
  const TopkResult out = TopkAnswer({}, queries, k).onHost();
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

bool isBits(const IndexSegment& s) { return s.vectors.dtype == DType::uint8; }

/// A segment that is where the queries are.
TopkResult searchPlaced(Job& job, const Asked& queries, const IndexSegment& s, const IndexSearchOptions& options,
                        std::vector<char>& unproven) {
  const int64_t k = std::min(options.k, s.vectors.rows());
  if (isBits(s)) return searchBits(job, queries, s, k);
  if (s.codes) return searchCodes(job, queries, s, k, options, unproven);
  return topkOfFinite(job, queries.placed, s.vectors, s.norms, k, options.metric, {s.allowed, {}, {}});
}

/// Elements [begin, end) of the first dimension, in the memory of t, which is the host's.
Tensor viewOfRows(const Tensor& t, int64_t begin, int64_t end) {
  const int64_t bytes = (t.rank() == 2 ? t.cols() : 1) * static_cast<int64_t>(sizeOf(t.dtype));
  Tensor view{.dtype = t.dtype, .shape = t.rank() == 2 ? Shape{end - begin, t.cols()} : Shape{end - begin}};
  view.buffer =
      std::make_shared<Buffer>(t.data<char>() + begin * bytes, (end - begin) * bytes, Device{}, t.buffer, true);
  return view;
}

int64_t rowBytes(const IndexSegment& s) {
  int64_t bytes = s.vectors.cols() * static_cast<int64_t>(sizeOf(s.vectors.dtype));
  if (s.norms) bytes += 4;
  if (s.codes) bytes += s.codes->codes.cols() + 8;
  return bytes;
}

/// A segment in host memory, on the GPU where the queries are: blocks of rows go there, are searched and forgotten. Two
/// are there at a time.
TopkResult searchInBlocks(Job& job, const Asked& queries, const IndexSegment& s, const IndexSearchOptions& options,
                          std::vector<char>& unproven) {
  constexpr int64_t word = 64;                 // of the bitmap: blocks begin at whole ones
  constexpr int64_t largestBlock = 256 << 20;  // beyond which nothing is gained
  const int64_t bytes = options.blockBytes ? *options.blockBytes : freeBytes(queries.device()) / 3;
  const int64_t rows = s.vectors.rows(), wanted = std::min(bytes / 2, largestBlock) / std::max<int64_t>(rowBytes(s), 1);
  const int64_t step = std::max(wanted / word, int64_t{1}) * word;
  std::optional<TopkResult> best;
  const auto partsOf = [&](int64_t b) {
    const int64_t begin = b * step, end = std::min(begin + step, rows);
    BlockParts parts{viewOfRows(s.vectors, begin, end)};
    if (s.norms) parts.push_back(viewOfRows(*s.norms, begin, end));
    if (!s.codes) return parts;
    for (const Tensor* t : {&s.codes->codes, &s.codes->scales, &s.codes->residuals}) {
      parts.push_back(viewOfRows(*t, begin, end));
    }
    return parts;
  };
  streamBlocks(queries.device(), (rows + step - 1) / step, partsOf, [&](int64_t b, const BlockParts& parts) {
    const int64_t begin = b * step, end = std::min(begin + step, rows);
    IndexSegment block{parts[0], {}, {}, {}};
    if (s.norms) block.norms = parts[1];
    if (s.codes) block.codes = Int8Codes{parts.end()[-3], parts.end()[-2], parts.end()[-1]};
    if (s.allowed) block.allowed = viewOfRows(*s.allowed, begin / word, (end + word - 1) / word);
    TopkResult found = searchPlaced(job, queries, block, options, unproven);
    const bool rising = isBits(s) || options.metric == Metric::l2;
    const int64_t k = std::min(options.k, end);
    best = best ? merged({*best, found}, {0, begin}, queries.count(), k, rising) : found;
  });
  return *best;
}

}  // namespace

namespace ops {

IndexSearchResult indexSearch(Job& job, Tensor queries, std::vector<IndexSegment> segments,
                              IndexSearchOptions options) {
  require(!segments.empty(), ErrorCode::shape, "segments: expected at least one");
  require(options.rescore >= 1, ErrorCode::range, "rescore: expected at least 1 but received ", options.rescore);
  const Device device = deviceNamed(options.device);
  int64_t rows = 0;
  std::vector<int64_t> firstRows;
  for (const IndexSegment& s : segments) {  // messages only where they are needed: a search is often shorter than one
    if (s.vectors.rank() != 2 || s.vectors.rows() <= 0) {
      fail(ErrorCode::shape, "segments.vectors: expected a matrix but received shape ", text(s.vectors.shape));
    }
    if (s.vectors.device() != device && s.vectors.device().kind != Device::cpu) {
      fail(ErrorCode::device, "segments.vectors: expected to be on device '", options.device,
           "' or on 'cpu' but is on '", text(s.vectors.device()), "'");
    }
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
  expect(queries, "queries", isBits(segments[0]) ? DType::uint8 : DType::float32, 2);
  const Asked asked{copyTo(queries, Device{}), copyTo(queries, device)};
  if (!isBits(segments[0])) expectFinite(asked.host, "queries");  // where no GPU has to be waited for
  std::vector<char> unproven(static_cast<size_t>(asked.count()));
  std::vector<TopkResult> parts;
  for (const IndexSegment& s : segments) {
    parts.push_back(s.vectors.device() == device ? searchPlaced(job, asked, s, options, unproven)
                                                 : searchInBlocks(job, asked, s, options, unproven));
  }
  const bool rising = isBits(segments[0]) || options.metric == Metric::l2;
  const TopkResult found = parts.size() == 1 ? parts[0] : merged(parts, firstRows, asked.count(), options.k, rising);
  const bool counted = options.exact && segments[0].codes;
  const int64_t fallbacks = counted ? std::count(unproven.begin(), unproven.end(), 1) : 0;
  return {{found.ids}, {found.scores}, counted ? asked.count() - fallbacks : 0, fallbacks};
}

}  // namespace ops
}  // namespace topknot
