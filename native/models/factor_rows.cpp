#include "models/factor_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/random.h"
#include "ops/ops.h"

namespace topknot {

Tensor paddedRows(const Tensor& factors) {
  const int64_t f = factors.cols(), stride = strideOf(f);
  const Tensor out = Tensor::host<float>({factors.rows(), stride}, true);
  for (int64_t r = 0; r < factors.rows(); ++r) {
    std::copy_n(factors.data<float>() + r * f, f, out.data<float>() + r * stride);
  }
  return out;
}

Tensor trimmedRows(const Tensor& rows, int64_t factors) {
  const Tensor out = Tensor::host<float>({rows.rows(), factors});
  for (int64_t r = 0; r < rows.rows(); ++r) {
    std::copy_n(rows.data<float>() + r * rows.cols(), factors, out.data<float>() + r * factors);
  }
  return out;
}

void startRows(Job& job, const Tensor& rows, int64_t factors, double std, int64_t seed, uint64_t first) {
  parallelFor(rows.rows(), 256, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = rows.data<float>() + r * rows.cols();
      if (std::any_of(row, row + factors, [](float x) { return x != 0; })) continue;
      Random random(static_cast<uint64_t>(seed), first + static_cast<uint64_t>(r));
      for (int64_t k = 0; k < factors; ++k) row[k] = static_cast<float>(std * random.normal());
    }
  });
  job.checkCancelled();
}

void clearEmptyRows(const Csr& m, const Tensor& factors) {
  const CsrView v = m.view();
  for (int64_t r = 0; r < v.rows; ++r) {
    if (v.indptr[r] == v.indptr[r + 1]) std::fill_n(factors.data<float>() + r * factors.cols(), factors.cols(), 0.0f);
  }
}

std::vector<uint8_t> ownItemBits(Job& job, const Csr& rows) {
  const CsrView v = rows.view();
  std::vector<uint8_t> bits(static_cast<size_t>(2 * rows.nnz()), 0);
  parallelFor(v.rows, 1024, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t e = v.indptr[r]; e < v.indptr[r + 1]; ++e) {
        const uint64_t bit = ownItemBit(v.indptr[r + 1] - v.indptr[r], v.indices[e]);
        bits[2 * v.indptr[r] + bit / 8] |= static_cast<uint8_t>(1u << bit % 8);
      }
    }
  });
  job.checkCancelled();
  return bits;
}

void expectInteractions(Job& job, const Csr& m, const char* name) {
  ops::csrValidate(job, m);
  require(m.rows() > 0 && m.cols > 0, ErrorCode::shape, name,
          ": expected at least one row and one column but received [", m.rows(), ", ", m.cols, "]");
  require(m.nnz() <= std::numeric_limits<uint32_t>::max(), ErrorCode::shape, name,
          ": expected fewer than 2^32 entries but received ", m.nnz());
}

void expectFloats(const Tensor& t, const char* name, std::initializer_list<int64_t> shape) {
  expect(t, name, DType::float32, static_cast<int>(shape.size()));
  require(t.shape == Shape(shape), ErrorCode::shape, name, ": expected shape ", text(Shape(shape)), " but received ",
          text(t.shape));
}

void expectNumber(double value, double least, double most, const char* name) {
  require(std::isfinite(value) && value >= least && value <= most, ErrorCode::range, name,
          ": expected a finite number from ", least, " to ", most, " but received ", value);
}

void expectBounded(Job& job, const Tensor& factors, double learningRate, double regularization) {
  parallelFor(factors.count(), 1 << 16, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      require(std::isfinite(factors.data<float>()[i]), ErrorCode::value, "learningRate: with ", learningRate,
              " and a regularization of ", regularization, " the factors grew beyond float32: use a smaller one");
    }
  });
  job.checkCancelled();
}

}  // namespace topknot
