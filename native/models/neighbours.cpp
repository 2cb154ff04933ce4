#include "models/neighbours.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/memory.h"
#include "backend/registry.h"
#include "models/placed.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

void checkOptions(const NeighbourOptions& o) {
  require(o.neighbours >= 1, ErrorCode::range, "neighbours: expected 1 or more but received ", o.neighbours);
  require(std::isfinite(o.shrinkage) && o.shrinkage >= 0, ErrorCode::range,
          "shrinkage: expected a number of at least 0 but received ", o.shrinkage);
  require(o.asymmetry >= 0 && o.asymmetry <= 1, ErrorCode::range,
          "asymmetry: expected a number from 0 to 1 but received ", o.asymmetry);
  require(std::isfinite(o.k1) && o.k1 >= 0, ErrorCode::range, "k1: expected a number of at least 0 but received ",
          o.k1);
  require(o.b >= 0 && o.b <= 1, ErrorCode::range, "b: expected a number from 0 to 1 but received ", o.b);
}

std::vector<double> idfOf(const CsrView& m, NeighbourWeighting weighting) {
  std::vector<double> out(static_cast<size_t>(m.cols));
  for (int64_t e = 0; e < m.indptr[m.rows]; ++e) ++out[m.indices[e]];
  const double rows = static_cast<double>(m.rows);
  for (double& x : out) {
    x = weighting == NeighbourWeighting::bm25 ? std::log1p((rows - x + 0.5) / (x + 0.5))
                                              : std::log((1 + rows) / (1 + x)) + 1;
  }
  return out;
}

/// A row's weighted values go to `out`; returns their length.
double weighRow(const CsrView& m, int64_t row, const double* idf, double meanLength, const NeighbourOptions& o,
                float* out) {
  const int64_t begin = m.indptr[row], end = m.indptr[row + 1];
  double length = 0, squares = 0;
  for (int64_t e = begin; e < end; ++e) length += static_cast<double>(m.values[e]);
  const double saturation = o.k1 * (1 - o.b + o.b * length / meanLength);
  for (int64_t e = begin; e < end; ++e) {
    const double v = static_cast<double>(m.values[e]);
    double w = v;
    if (o.similarity == NeighbourWeighting::tfidf) w = v * idf[m.indices[e]];
    if (o.similarity == NeighbourWeighting::bm25) w = v > 0 ? idf[m.indices[e]] * v * (o.k1 + 1) / (v + saturation) : 0;
    out[e] = static_cast<float>(w);
    squares += w * w;
  }
  return std::sqrt(squares);
}

struct WeightedRows {
  Csr rows;
  Tensor norms;
};

/// `exponent` is that of the norms.
WeightedRows weighted(Job& job, const Csr& rows, const double* idf, double meanLength, double exponent,
                      const NeighbourOptions& o) {
  WeightedRows out{rows, Tensor::host<float>({rows.rows()})};
  out.rows.values = Tensor::host<float>({rows.nnz()});
  parallelFor(rows.rows(), 256, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const double norm = weighRow(rows.view(), r, idf, meanLength, o, out.rows.values.data<float>());
      require(norm <= 1e18, ErrorCode::value, "values: the weights of row ", r,
              " are too large for float32: scale them down");
      out.norms.data<float>()[r] = static_cast<float>(exponent == 1 ? norm : std::pow(norm, exponent));
    }
  });
  job.checkCancelled();
  return out;
}

/// The lists of k as a matrix, each row by rising column.
Csr matrixOf(Job& job, const int32_t* ids, const float* scores, int64_t rows, int64_t k, int64_t cols) {
  Csr out{Tensor::host<int64_t>({rows + 1}, true), {}, {}, cols};
  int64_t* ptr = out.indptr.data<int64_t>();
  for (int64_t r = 0; r < rows; ++r) {
    ptr[r + 1] = ptr[r] + (std::find(ids + r * k, ids + (r + 1) * k, -1) - (ids + r * k));
  }
  out.indices = Tensor::host<int32_t>({ptr[rows]});
  out.values = Tensor::host<float>({ptr[rows]});
  parallelFor(rows, 256, job.exec(), [&](int64_t begin, int64_t end, int) {
    std::vector<std::pair<int32_t, float>> list;
    for (int64_t r = begin; r < end; ++r) {
      list.clear();
      for (int64_t j = 0; j < ptr[r + 1] - ptr[r]; ++j) list.emplace_back(ids[r * k + j], scores[r * k + j]);
      std::sort(list.begin(), list.end());
      for (size_t j = 0; j < list.size(); ++j) {
        out.indices.data<int32_t>()[ptr[r] + static_cast<int64_t>(j)] = list[j].first;
        out.values.data<float>()[ptr[r] + static_cast<int64_t>(j)] = list[j].second;
      }
    }
  });
  job.checkCancelled();
  return out;
}

}  // namespace

namespace ops {

NeighbourIndex neighbourIndex(Job& job, Csr rows, NeighbourOptions o) {
  checkOptions(o);
  csrValidate(job, rows);
  const CsrView v = rows.view();
  const std::vector<double> idf = idfOf(v, o.similarity);
  double total = 0;
  for (int64_t e = 0; e < rows.nnz(); ++e) {
    require(v.values[e] >= 0, ErrorCode::value, "rows: expected values of 0 or more but received ", v.values[e]);
    total += static_cast<double>(v.values[e]);
  }
  NeighbourIndex index;
  index.meanLength = total > 0 ? total / static_cast<double>(v.rows) : 1;
  index.idf = Tensor::host<double>({v.cols});
  std::copy(idf.begin(), idf.end(), index.idf.data<double>());
  const WeightedRows w = weighted(job, rows, idf.data(), index.meanLength, 2 * o.asymmetry, o);
  index.terms = csrTranspose(job, w.rows);
  index.norms = w.norms;
  return index;
}

Csr neighbours(Job& job, Csr rows, NeighbourIndex index, bool self, NeighbourOptions o) {
  checkOptions(o);
  expectOnHost(rows, "rows");
  expectOnHost(index.idf, "index.idf");
  expectCsr(rows, "rows");
  expectCsr(index.terms, "index.terms");
  expect(index.norms, "index.norms", DType::float32, 1);
  expect(index.idf, "index.idf", DType::float64, 1);
  const int64_t candidates = index.terms.cols;
  require(rows.cols == index.terms.rows() && index.idf.count() == rows.cols, ErrorCode::shape, "rows: expected ",
          index.terms.rows(), " columns, as many as the index has terms, but received ", rows.cols);
  require(index.norms.count() == candidates && (!self || rows.rows() == candidates), ErrorCode::shape,
          "rows: expected the ", candidates, " rows of the index but received ", rows.rows());
  const Device device = index.terms.values.device();
  expectSameDevice(index.terms.indptr, "index.terms.indptr", index.terms.values, "index.terms.values");
  expectSameDevice(index.terms.indices, "index.terms.indices", index.terms.values, "index.terms.values");
  expectSameDevice(index.norms, "index.norms", index.terms.values, "index.terms.values");
  const int64_t k = std::min(o.neighbours, candidates);
  WeightedRows w = weighted(job, rows, index.idf.data<double>(), index.meanLength, 2 - 2 * o.asymmetry, o);

  // In blocks of rows, for the sake of memory and of progress.
  const int64_t block = std::max<int64_t>(256, (int64_t{1} << 24) / std::max<int64_t>(k, 1));
  w = {copyTo(w.rows, device), copyTo(w.norms, device)};
  const Tensor ids = empty<int32_t>(device, {rows.rows(), k}), scores = empty<float>(device, {rows.rows(), k});
  job.progress({0, static_cast<double>(rows.rows()), std::nan("")});
  for (int64_t first = 0; first < rows.rows(); first += block) {
    CsrView a = w.rows.view();
    a.indptr += first;
    a.rows = std::min(block, rows.rows() - first);
    const NeighboursArgs args{.a = a,
                              .b = index.terms.view(),
                              .aNorms = w.norms.data<float>() + first,
                              .bNorms = index.norms.data<float>(),
                              .shrinkage = static_cast<float>(o.shrinkage),
                              .self = self ? first : -1,
                              .k = k,
                              .ids = ids.data<int32_t>() + first * k,
                              .scores = scores.data<float>() + first * k};
    run(device, &Backend::neighbours, "neighbours", job.exec(), args);
    job.checkCancelled();
    job.progress({static_cast<double>(first + a.rows), static_cast<double>(rows.rows()), std::nan("")});
  }
  const Tensor nearest = copyTo(ids, Device{}), similarities = copyTo(scores, Device{});
  return matrixOf(job, nearest.data<int32_t>(), similarities.data<float>(), rows.rows(), k, candidates);
}

Csr neighbourWeights(Job& job, Csr neighbours, bool normalize) {
  expectCsr(neighbours, "neighbours");
  if (!normalize) return csrTranspose(job, neighbours);
  const CsrView v = neighbours.view();
  Csr scaled = neighbours;
  scaled.values = Tensor::host<float>({neighbours.nnz()});
  for (int64_t r = 0; r < v.rows; ++r) {
    double sum = 0;
    for (int64_t e = v.indptr[r]; e < v.indptr[r + 1]; ++e) sum += static_cast<double>(v.values[e]);
    for (int64_t e = v.indptr[r]; e < v.indptr[r + 1]; ++e) {
      scaled.values.data<float>()[e] = sum > 0 ? static_cast<float>(static_cast<double>(v.values[e]) / sum) : 0;
    }
  }
  return csrTranspose(job, scaled);
}

}  // namespace ops
}  // namespace topknot
