// Of the two ways to the same B, the one with the smaller inverse: with n items and m users, P = (XᵀX + λ I)⁻¹ itself,
// n x n, or K = (X Xᵀ + λ I)⁻¹, m x m, and λ P = I - Xᵀ K X (Woodbury), of which B_ij = (Xᵀ K X)_ij / (1 - (Xᵀ K
// X)_jj).
#include "models/ease.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "backend/memory.h"
#include "backend/registry.h"
#include "models/placed.h"
#include "ops/ops.h"
#include "ops/spd_inverse.h"

namespace topknot {
namespace {

constexpr int64_t columnsAtOnce = 512;  // of B, on the way by users

using Weights = std::vector<std::pair<int32_t, float>>;

void expectMemory(const Csr& users, bool byUsers, bool whole) {
  const int64_t m = users.rows(), n = users.cols, order = byUsers ? m : n;
  constexpr int64_t f = sizeof(float);
  const int64_t bytes = order * order * f + inverseScratchBytes(order) +
                        (byUsers ? (2 * m + 2 * n) * columnsAtOnce * f + (whole ? n * n * f : 0) : 0);
  const int64_t there = freeBytes({});
  const auto gigabytes = [](int64_t b) { return static_cast<double>(b / 1'000'000) / 1e3; };
  require(there == 0 || bytes <= there, ErrorCode::memory, "EASE: ", n, " items and ", m, " users need ",
          gigabytes(bytes), " GB of memory but only ", gigabytes(there),
          " GB are free: ", byUsers && whole ? "keep fewer weights (neighbours), " : "",
          "leave out rare items, or use ItemKNN or ALS");
}

void copy(Job& job, Device device, const CopyMatrixArgs& args) {
  run(device, &Backend::copyMatrix, "copyMatrix", job.exec(), args);
  job.checkCancelled();
}

/// (rows · rowsᵀ + λ I)⁻¹, where `rows` are.
Tensor inverse(Job& job, const Csr& rows, const Csr& transposed, double lambda) {
  const int64_t n = rows.rows();
  const Device device = rows.values.device();
  const Tensor p = empty<float>(device, {n, n}), diagonal = empty<float>(device, {n, 1});
  run(device, &Backend::spgemm, "spgemm", job.exec(),
      SpgemmArgs{rows.view(), nullptr, n, transposed.view(), p.data<float>()});
  job.checkCancelled();
  copy(job, device, {n, 1, p.data<float>(), n + 1, diagonal.data<float>(), 1});
  Tensor sums = copyTo(diagonal, Device{});
  for (float& x : sums.span<float>()) x += static_cast<float>(lambda);
  sums = copyTo(sums, device);
  copy(job, device, {n, 1, sums.data<float>(), 1, p.data<float>(), n + 1});
  invertPositiveDefinite(job, p, "EASE: the Gram matrix + regularization", [&](int64_t done) {
    job.progress({static_cast<double>(done), static_cast<double>(n), std::nan("")});
  });
  return p;
}

/// The `k` largest of a column of B by magnitude, by rising row.
Weights largest(const float* column, int64_t n, int64_t k) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  const auto before = [&](int32_t a, int32_t b) {
    return std::abs(column[a]) != std::abs(column[b]) ? std::abs(column[a]) > std::abs(column[b]) : a < b;
  };
  k = std::min(k, n);
  std::nth_element(ids.begin(), ids.begin() + (k - 1), ids.end(), before);
  std::sort(ids.begin(), ids.begin() + k);
  Weights out;
  for (int64_t i = 0; i < k; ++i) {
    if (column[ids[i]] != 0) out.emplace_back(ids[i], column[ids[i]]);
  }
  return out;
}

/// B of its columns.
Csr matrixOf(Job& job, const std::vector<Weights>& columns) {
  const int64_t n = static_cast<int64_t>(columns.size());
  Csr byColumn{Tensor::host<int64_t>({n + 1}, true), {}, {}, n};
  int64_t* ptr = byColumn.indptr.data<int64_t>();
  for (int64_t j = 0; j < n; ++j) ptr[j + 1] = ptr[j] + static_cast<int64_t>(columns[j].size());
  byColumn.indices = Tensor::host<int32_t>({ptr[n]});
  byColumn.values = Tensor::host<float>({ptr[n]});
  for (int64_t j = 0; j < n; ++j) {
    int64_t at = ptr[j];
    for (const auto& [id, weight] : columns[j]) {
      byColumn.indices.data<int32_t>()[at] = id;
      byColumn.values.data<float>()[at++] = weight;
    }
  }
  return ops::csrTranspose(job, byColumn);
}

/// By items: P is symmetric, so its row j becomes the column j of B.
LinearWeights byItems(Job& job, const Tensor& p, int64_t neighbours) {
  const int64_t n = p.rows();
  std::vector<Weights> columns(static_cast<size_t>(neighbours > 0 ? n : 0));
  std::vector<float> scale(static_cast<size_t>(n));
  for (int64_t j = 0; j < n; ++j) scale[j] = -1 / p.data<float>()[j * n + j];
  parallelFor(n, 16, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = p.data<float>() + r * n;
      for (int64_t i = 0; i < n; ++i) row[i] *= neighbours > 0 ? scale[r] : scale[i];
      row[r] = 0;
      if (neighbours > 0) columns[r] = largest(row, n, neighbours);
    }
  });
  job.checkCancelled();
  if (neighbours > 0) return {matrixOf(job, columns), std::nullopt};
  return {std::nullopt, p};
}

Tensor transposed(Job& job, const Tensor& m) {
  const Tensor out = empty<float>(m.device(), {m.cols(), m.rows()});
  copy(job, m.device(), {m.cols(), m.rows(), m.data<float>(), m.cols(), out.data<float>(), m.rows(), true});
  return out;
}

/// By users: columns of Xᵀ K X, some at once, computed where K is.
LinearWeights byUsers(Job& job, const Csr& items, const Tensor& k, int64_t neighbours) {
  const int64_t n = items.rows(), m = items.cols;
  const Device device = k.device();
  std::vector<Weights> columns(static_cast<size_t>(neighbours > 0 ? n : 0));
  const Tensor whole = neighbours > 0 ? Tensor() : Tensor::host<float>({n, n});
  for (int64_t first = 0; first < n; first += columnsAtOnce) {
    const int64_t count = std::min(columnsAtOnce, n - first);
    Tensor rows = Tensor::host<int32_t>({count});
    std::iota(rows.data<int32_t>(), rows.data<int32_t>() + count, static_cast<int32_t>(first));
    rows = copyTo(rows, device);
    const Tensor left = empty<float>(device, {count, m}), product = empty<float>(device, {n, count});
    run(device, &Backend::spmm, "spmm", job.exec(),
        SpmmArgs{items.view(), rows.data<int32_t>(), count, k.data<float>(), m, m, left.data<float>(), m});
    job.checkCancelled();
    const Tensor right = transposed(job, left);  // K X, these columns
    run(device, &Backend::spmm, "spmm", job.exec(),
        SpmmArgs{items.view(), nullptr, n, right.data<float>(), count, count, product.data<float>(), count});
    job.checkCancelled();
    const Tensor byColumn = copyTo(transposed(job, product), Device{});
    parallelFor(count, 8, job.exec(), [&](int64_t begin, int64_t end, int) {
      for (int64_t c = begin; c < end; ++c) {
        float* column = byColumn.data<float>() + c * n;
        const float left = 1 - column[first + c];
        require(left > 0, ErrorCode::value, "EASE: item ", first + c,
                " cannot be told from the others in float32: use a larger regularization");
        const float scale = 1 / left;
        for (int64_t i = 0; i < n; ++i) column[i] *= scale;
        column[first + c] = 0;
        if (neighbours > 0) columns[first + c] = largest(column, n, neighbours);
      }
    });
    job.checkCancelled();
    if (neighbours > 0) continue;
    copy(job, Device{}, {n, count, byColumn.data<float>(), n, whole.data<float>() + first, n, true});
  }
  if (neighbours > 0) return {matrixOf(job, columns), std::nullopt};
  return {std::nullopt, whole};
}

}  // namespace

namespace ops {

LinearWeights easeFit(Job& job, Csr users, EaseOptions o) {
  csrValidate(job, users);
  require(std::isfinite(o.regularization) && o.regularization > 0, ErrorCode::range,
          "regularization: expected a number above 0 but received ", o.regularization);
  require(o.neighbours >= 0, ErrorCode::range, "neighbours: expected 0 or more but received ", o.neighbours);
  const bool fewerUsers = users.rows() < users.cols;
  expectMemory(users, fewerUsers, o.neighbours == 0);
  job.progress({0, static_cast<double>(std::min(users.rows(), users.cols)), std::nan("")});
  const Device device = deviceNamed(o.device);
  const Csr items = copyTo(csrTranspose(job, users), device);
  users = copyTo(users, device);
  if (fewerUsers) return byUsers(job, items, inverse(job, users, items, o.regularization), o.neighbours);
  return byItems(job, copyTo(inverse(job, items, users, o.regularization), Device{}), o.neighbours);
}

}  // namespace ops
}  // namespace topknot
