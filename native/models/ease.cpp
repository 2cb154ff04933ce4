#include "models/ease.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "backend/registry.h"
#include "ops/ops.h"
#include "ops/spd_inverse.h"

namespace topknot {
namespace {

void expectMemory(int64_t items, int64_t bytes) {
  const int64_t there = freeBytes({});
  const auto gigabytes = [](int64_t b) { return static_cast<double>(b / 1'000'000) / 1e3; };
  require(there == 0 || bytes <= there, ErrorCode::memory, "EASE: ", items, " items need ", gigabytes(bytes),
          " GB of memory, ", items, "² weights, but only ", gigabytes(there),
          " GB are free: leave out rare items, or use ItemKNN or ALS");
}

/// The row of item j in P becomes its weights, P_ij / -P_jj: the column j of B.
std::vector<std::pair<int32_t, float>> largest(const float* row, int64_t n, int64_t j, int64_t k) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  ids.erase(ids.begin() + j);
  const auto before = [&](int32_t a, int32_t b) {
    return std::abs(row[a]) != std::abs(row[b]) ? std::abs(row[a]) > std::abs(row[b]) : a < b;
  };
  k = std::min<int64_t>(k, static_cast<int64_t>(ids.size()));
  if (k > 0) std::nth_element(ids.begin(), ids.begin() + (k - 1), ids.end(), before);
  std::sort(ids.begin(), ids.begin() + k);
  std::vector<std::pair<int32_t, float>> out;
  for (int64_t i = 0; i < k; ++i) {
    const float weight = -row[ids[i]] / row[j];
    if (weight != 0) out.emplace_back(ids[i], weight);
  }
  return out;
}

/// B with the `k` largest weights of each column.
Csr truncated(Job& job, const Tensor& p, int64_t k) {
  const int64_t n = p.rows();
  std::vector<std::vector<std::pair<int32_t, float>>> columns(static_cast<size_t>(n));
  parallelFor(n, 16, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t j = begin; j < end; ++j) columns[j] = largest(p.data<float>() + j * n, n, j, k);
  });
  job.checkCancelled();
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

/// P becomes B.
void weigh(Job& job, const Tensor& p) {
  const int64_t n = p.rows();
  float* b = p.data<float>();
  std::vector<float> scale(static_cast<size_t>(n));
  for (int64_t j = 0; j < n; ++j) scale[j] = -1 / b[j * n + j];
  parallelFor(n, 16, job.exec(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < n; ++j) b[i * n + j] *= scale[j];
      b[i * n + i] = 0;
    }
  });
  job.checkCancelled();
}

}  // namespace

namespace ops {

LinearWeights easeFit(Job& job, Csr users, EaseOptions o) {
  csrValidate(job, users);
  require(std::isfinite(o.regularization) && o.regularization > 0, ErrorCode::range,
          "regularization: expected a number above 0 but received ", o.regularization);
  require(o.neighbours >= 0, ErrorCode::range, "neighbours: expected 0 or more but received ", o.neighbours);
  const int64_t n = users.cols;
  expectMemory(n, n * n * static_cast<int64_t>(sizeof(float)) + inverseScratchBytes(n));
  const double total = static_cast<double>(n);
  job.progress({0, total, std::nan("")});

  const Csr items = csrTranspose(job, users);
  const Tensor p = Tensor::host<float>({n, n});
  run(cpuBackend(), &Backend::spgemm, "spgemm", job.exec(),
      SpgemmArgs{items.view(), nullptr, n, users.view(), p.data<float>()});
  job.checkCancelled();
  for (int64_t i = 0; i < n; ++i) p.data<float>()[i * n + i] += static_cast<float>(o.regularization);
  invertPositiveDefinite(job, p.data<float>(), n, "EASE: XᵀX + regularization", [&](int64_t rows) {
    job.progress({static_cast<double>(rows), total, std::nan("")});
  });
  if (o.neighbours > 0) return {truncated(job, p, o.neighbours), std::nullopt};
  weigh(job, p);
  return {std::nullopt, p};
}

}  // namespace ops
}  // namespace topknot
