// Sparse products and neighbours against dense float64 formulas, for every instruction set of this machine.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/registry.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;
using Dense = std::vector<std::vector<double>>;

namespace {

/// About `density` of the cells, values in (0, 2]; every seventh row is empty, and one is full.
Csr randomMatrix(int64_t rows, int64_t cols, double density, uint64_t seed) {
  std::vector<int64_t> ptr{0};
  std::vector<int32_t> ids;
  std::vector<float> values;
  for (int64_t r = 0; r < rows; ++r) {
    Random random(seed, static_cast<uint64_t>(r));
    for (int64_t c = 0; c < cols && r % 7 != 6; ++c) {
      if (r != 3 && random.uniform() >= density) continue;
      ids.push_back(static_cast<int32_t>(c));
      values.push_back(static_cast<float>(2 - 2 * random.uniform()));
    }
    ptr.push_back(static_cast<int64_t>(ids.size()));
  }
  const int64_t nnz = ptr.back();
  Csr m{Tensor::host<int64_t>({rows + 1}), Tensor::host<int32_t>({nnz}), Tensor::host<float>({nnz}), cols};
  std::copy(ptr.begin(), ptr.end(), m.indptr.data<int64_t>());
  std::copy(ids.begin(), ids.end(), m.indices.data<int32_t>());
  std::copy(values.begin(), values.end(), m.values.data<float>());
  return m;
}

Dense dense(const Csr& m) {
  Dense out(static_cast<size_t>(m.rows()), std::vector<double>(static_cast<size_t>(m.cols)));
  const CsrView v = m.view();
  for (int64_t r = 0; r < v.rows; ++r) {
    for (int64_t e = v.indptr[r]; e < v.indptr[r + 1]; ++e) out[r][v.indices[e]] = static_cast<double>(v.values[e]);
  }
  return out;
}

Dense product(const Dense& a, const Dense& b) {
  Dense out(a.size(), std::vector<double>(b.empty() ? 0 : b[0].size()));
  for (size_t r = 0; r < a.size(); ++r) {
    for (size_t i = 0; i < b.size(); ++i) {
      for (size_t c = 0; c < b[i].size(); ++c) out[r][c] += a[r][i] * b[i][c];
    }
  }
  return out;
}

Dense transposed(const Dense& a) {
  Dense out(a[0].size(), std::vector<double>(a.size()));
  for (size_t r = 0; r < a.size(); ++r) {
    for (size_t c = 0; c < a[r].size(); ++c) out[c][r] = a[r][c];
  }
  return out;
}

bool near(double got, double exact, double size) { return std::abs(got - exact) <= 4e-6 * (1 + size); }

/// Runs `body` for every instruction set with 1 and 4 threads; what it returns must be the same bytes for both.
template <typename Body>
void everywhere(Body body) {
  const int before = threadCount();
  for (const Backend* backend : cpuBackends()) {
    useIsa(backend->isa);
    std::vector<char> bytes[2];
    for (const int threads : {1, 4}) {
      setThreadCount(threads);
      const Tensor t = body();
      const char* data = static_cast<const char*>(t.buffer->data());
      bytes[threads == 4].assign(data, data + t.bytes());
    }
    CHECK(bytes[0] == bytes[1]);
  }
  useIsa(cpuBackends().front()->isa);
  setThreadCount(before);
}

}  // namespace

TEST(sparse_times_dense) {
  for (const auto& [rows, inner, cols] :
       {std::array<int64_t, 3>{50, 40, 1}, {50, 40, 7}, {33, 90, 64}, {20, 30, 100}, {9, 20, 5000}, {0, 5, 8}}) {
    const Csr a = randomMatrix(rows, inner, 0.2, 1);
    const int64_t ldb = cols + 3, ldo = cols + 5;
    const Tensor b = Tensor::host<float>({inner, ldb});
    Random random(2, 0);
    for (float& x : b.span<float>()) x = static_cast<float>(random.normal());
    Dense wide(static_cast<size_t>(inner), std::vector<double>(static_cast<size_t>(cols)));
    for (int64_t i = 0; i < inner; ++i) {
      for (int64_t c = 0; c < cols; ++c) wide[i][c] = static_cast<double>(b.data<float>()[i * ldb + c]);
    }
    const Dense exact = product(dense(a), wide);
    std::vector<int32_t> order;  // all rows backwards, the first once more
    for (int64_t r = rows - 1; r >= 0; --r) order.push_back(static_cast<int32_t>(r));
    if (rows) order.push_back(0);
    everywhere([&] {
      const int64_t count = static_cast<int64_t>(order.size());
      const Tensor out = Tensor::host<float>({count, ldo}, true);
      run(cpuBackend(), &Backend::spmm, "spmm", Exec{},
          SpmmArgs{a.view(), order.data(), count, b.data<float>(), ldb, cols, out.data<float>(), ldo});
      for (int64_t q = 0; q < count; ++q) {
        for (int64_t c = 0; c < ldo; ++c) {
          const double got = static_cast<double>(out.data<float>()[q * ldo + c]);
          CHECK(c < cols ? near(got, exact[order[q]][c], 40) : got == 0);
        }
      }
      return out;
    });
  }
}

TEST(sparse_times_sparse) {
  const Csr a = randomMatrix(60, 45, 0.2, 3), b = randomMatrix(45, 130, 0.1, 4);
  const Dense exact = product(dense(a), dense(b));
  everywhere([&] {
    const Tensor out = Tensor::host<float>({60, 130});
    run(cpuBackend(), &Backend::spgemm, "spgemm", Exec{},
        SpgemmArgs{a.view(), nullptr, 60, b.view(), out.data<float>()});
    for (size_t r = 0; r < 60; ++r) {
      for (size_t c = 0; c < 130; ++c) CHECK(near(out.data<float>()[r * 130 + c], exact[r][c], 20));
    }
    return out;
  });
}

TEST(neighbours_of_rows) {
  for (const int64_t k : {1, 10, 400}) {
    const Csr rows = randomMatrix(300, 70, 0.1, 5);
    const Dense a = dense(rows), s = product(a, transposed(a));
    for (const double shrinkage : {0.0, 3.0}) {
      const NeighbourOptions options{.neighbours = k, .shrinkage = shrinkage};
      everywhere([&] {
        Job job;
        const Csr found = ops::neighbours(job, rows, ops::neighbourIndex(job, rows, options), true, options);
        const CsrView v = found.view();
        for (size_t r = 0; r < 300; ++r) {
          std::vector<double> all;
          const auto similarity = [&](size_t c) {
            return s[r][c] > 0 ? s[r][c] / (std::sqrt(s[r][r] * s[c][c]) + shrinkage) : 0;
          };
          for (size_t c = 0; c < 300; ++c) {
            if (c != r && s[r][c] > 0) all.push_back(similarity(c));
          }
          std::sort(all.rbegin(), all.rend());
          const size_t count = std::min(all.size(), static_cast<size_t>(k));
          CHECK(static_cast<size_t>(v.indptr[r + 1] - v.indptr[r]) == count);
          for (int64_t e = v.indptr[r]; e < v.indptr[r + 1]; ++e) {
            CHECK(v.indices[e] != static_cast<int32_t>(r));
            CHECK(near(v.values[e], similarity(static_cast<size_t>(v.indices[e])), 1));
            CHECK(v.values[e] >= all[count - 1] - 1e-6);
            CHECK(e == v.indptr[r] || v.indices[e - 1] < v.indices[e]);
          }
        }
        return found.values;
      });
    }
  }
}

TEST(bad_neighbours) {
  Job job;
  const Csr rows = randomMatrix(20, 10, 0.3, 6);
  const NeighbourIndex index = ops::neighbourIndex(job, rows, {});
  CHECK_THROWS(ops::neighbourIndex(job, rows, {.neighbours = 0}), range);
  CHECK_THROWS(ops::neighbourIndex(job, rows, {.shrinkage = -1}), range);
  CHECK_THROWS(ops::neighbourIndex(job, rows, {.b = 2}), range);
  CHECK_THROWS(ops::neighbours(job, randomMatrix(20, 11, 0.3, 6), index, true, {}), shape);
  CHECK_THROWS(ops::neighbours(job, randomMatrix(19, 10, 0.3, 6), index, true, {}), shape);
  Csr negative = rows;
  negative.values = Tensor::host<float>({rows.nnz()});
  std::fill_n(negative.values.data<float>(), rows.nnz(), -1.0f);
  CHECK_THROWS(ops::neighbourIndex(job, negative, {}), value);
  job.cancel();
  CHECK_THROWS(ops::neighbours(job, rows, index, true, {}), aborted);
}

TEST_MAIN()
