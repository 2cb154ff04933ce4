// Batches of matrices of many kinds, and what float64 says about factors and solutions of them.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "core/random.h"
#include "core/tensor.h"

namespace topknot::test {

inline constexpr DType dtypes[] = {DType::float32, DType::float64};
inline double epsilon(DType dtype) { return dtype == DType::float32 ? 0x1p-24 : 0x1p-53; }
inline double get(const Tensor& t, int64_t i) {
  return t.dtype == DType::float32 ? t.data<float>()[i] : t.data<double>()[i];
}
inline void set(Tensor& t, int64_t i, double x) {
  if (t.dtype == DType::float32) t.data<float>()[i] = static_cast<float>(x);
  else t.data<double>()[i] = x;
}

inline Tensor normals(DType dtype, Shape shape, uint64_t seed) {
  Tensor t = Tensor::host(dtype, shape);
  Random random(seed, 7);
  for (int64_t i = 0; i < t.count(); ++i) set(t, i, random.normal());
  return t;
}

/// G Gᵀ / n + 0.1 I for each matrix.
inline Tensor positiveDefinite(DType dtype, int64_t batch, int64_t n, uint64_t seed) {
  const Tensor g = normals(dtype, {batch, n, n}, seed);
  Tensor a = Tensor::host(dtype, {batch, n, n});
  for (int64_t m = 0; m < batch; ++m) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = i == j ? 0.1 : 0;
        for (int64_t k = 0; k < n; ++k) {
          sum += get(g, (m * n + i) * n + k) * get(g, (m * n + j) * n + k) / static_cast<double>(n);
        }
        set(a, (m * n + i) * n + j, sum);
      }
    }
  }
  return a;
}

/// max |a x - b| over (|a| |x| + |b|), row by row with absolute values, for matrix m.
inline double residual(const Tensor& a, const Tensor& x, const Tensor& b, int64_t m, int64_t n, int64_t rhs) {
  double worst = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t q = 0; q < rhs; ++q) {
      double sum = -get(b, (m * n + i) * rhs + q), size = std::fabs(sum);
      for (int64_t j = 0; j < n; ++j) {
        const double term = get(a, (m * n + i) * n + j) * get(x, (m * n + j) * rhs + q);
        sum += term, size += std::fabs(term);
      }
      const double relative = size > 0 ? std::fabs(sum) / size : 0;
      worst = relative <= worst ? worst : relative;  // NaN wins
    }
  }
  return worst;
}

inline double asymmetry(const Tensor& a, const Tensor& l, int64_t m, int64_t n) {
  double worst = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = -get(a, (m * n + i) * n + j), size = std::fabs(sum);
      for (int64_t k = 0; k < n; ++k) {
        const double term = get(l, (m * n + i) * n + k) * get(l, (m * n + j) * n + k);
        sum += term, size += std::fabs(term);
      }
      const double relative = j > i ? (get(l, (m * n + i) * n + j) == 0 ? 0 : 1) : std::fabs(sum) / size;
      worst = relative <= worst ? worst : relative;
    }
  }
  return worst;
}

/// Whether matrix m of a result has the same bytes as matrix k of another.
inline bool sameMatrix(const Tensor& a, int64_t m, const Tensor& b, int64_t k, int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeOf(a.dtype);
  return std::memcmp(a.data<char>() + m * bytes, b.data<char>() + k * bytes, bytes) == 0;
}

inline Tensor one(const Tensor& batch, int64_t m) {
  Shape shape = batch.rank() == 3 ? Shape{1, batch.shape[1], batch.shape[2]} : Shape{1, batch.shape[1]};
  Tensor t = Tensor::host(batch.dtype, shape);
  std::memcpy(t.data<char>(), batch.data<char>() + m * t.bytes(), t.bytes());
  return t;
}

inline Tensor copy(const Tensor& t) {
  Tensor out = Tensor::host(t.dtype, t.shape);
  std::memcpy(out.data<char>(), t.data<char>(), t.bytes());
  return out;
}

inline double larger(double a, double b) { return b <= a ? a : b; }  // NaN wins

/// A matrix in float64.
struct Dense {
  int64_t rows, cols;
  std::vector<double> data;

  Dense(int64_t m, int64_t n) : rows(m), cols(n), data(static_cast<size_t>(m * n)) {}
  Dense(const Tensor& batch, int64_t m) : Dense(batch.shape[1], batch.shape[2]) {
    for (int64_t e = 0; e < rows * cols; ++e) data[static_cast<size_t>(e)] = get(batch, m * rows * cols + e);
  }
  double& at(int64_t i, int64_t j) { return data[static_cast<size_t>(i * cols + j)]; }
  double at(int64_t i, int64_t j) const { return data[static_cast<size_t>(i * cols + j)]; }
  Dense transposed() const {
    Dense out(cols, rows);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) out.at(j, i) = at(i, j);
    }
    return out;
  }
  friend Dense operator*(const Dense& a, const Dense& b) {
    Dense out(a.rows, b.cols);
    for (int64_t i = 0; i < a.rows; ++i) {
      for (int64_t k = 0; k < a.cols; ++k) {
        for (int64_t j = 0; j < b.cols; ++j) out.at(i, j) += a.at(i, k) * b.at(k, j);
      }
    }
    return out;
  }
  double norm() const {
    double largest = 0, sum = 0;  // of what may be too large or too small to be squared
    for (double x : data) largest = larger(largest, std::fabs(x));
    if (!(largest > 0)) return largest;
    for (double x : data) sum += x / largest * (x / largest);
    return largest * std::sqrt(sum);
  }
  /// |this - exact| / |exact| in the Frobenius norm.
  double distance(const Dense& exact) const {
    Dense difference = *this;
    for (size_t e = 0; e < data.size(); ++e) difference.data[e] -= exact.data[e];
    const double size = exact.norm();
    return size > 0 ? difference.norm() / size : difference.norm();
  }
  /// The largest element of qᵀq - I.
  double orthogonality() const {
    const Dense gram = transposed() * *this;
    double worst = 0;
    for (int64_t i = 0; i < cols; ++i) {
      for (int64_t j = 0; j < cols; ++j) worst = larger(worst, std::fabs(gram.at(i, j) - (i == j)));
    }
    return worst;
  }
};

/// Well-conditioned ones, ones of low rank, zeros, and very large and very small numbers beside each other.
inline std::vector<Tensor> matricesOfManyKinds(DType dtype, int64_t batch, int64_t rows, int64_t cols) {
  const Tensor plain = normals(dtype, {batch, rows, cols}, static_cast<uint64_t>(rows * 100 + cols));
  Tensor lowRank = copy(plain), graded = copy(plain), zeros = Tensor::host(dtype, plain.shape, true);
  Tensor huge = copy(plain), tiny = copy(plain);
  const double large = dtype == DType::float32 ? 1e30 : 1e250;
  for (int64_t e = 0; e < plain.count(); ++e) {
    const int64_t m = e / (rows * cols), i = e / cols % rows, j = e % cols;
    set(lowRank, e, get(plain, m * rows * cols + i * cols) * get(plain, m * rows * cols + j));
    set(graded, e, get(plain, e) * std::pow(10.0, -static_cast<double>((i + 2 * j) % 9)));
    set(huge, e, get(plain, e) * large);
    set(tiny, e, get(plain, e) / large);
  }
  return {plain, lowRank, graded, zeros, huge, tiny};
}

}  // namespace topknot::test
