// The coordinate descent of nonnegative matrix factorization against float64, for every instruction set of this
// machine.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/registry.h"
#include "core/csr.h"
#include "core/random.h"
#include "test/check.h"

using namespace topknot;

namespace {

Csr randomRows(const std::vector<int64_t>& counts, int64_t cols) {
  int64_t nnz = 0;
  for (const int64_t n : counts) nnz += n;
  const int64_t rows = static_cast<int64_t>(counts.size());
  Csr m{Tensor::host<int64_t>({rows + 1}, true), Tensor::host<int32_t>({nnz}), Tensor::host<float>({nnz}), cols};
  int64_t at = 0;
  for (int64_t r = 0; r < rows; ++r) {
    Random random(1, static_cast<uint64_t>(r));
    for (int64_t i = 0; i < counts[r]; ++i, ++at) {
      m.indices.data<int32_t>()[at] = static_cast<int32_t>((i * cols) / counts[r]);
      m.values.data<float>()[at] = static_cast<float>(3 * random.uniform());
    }
    m.indptr.data<int64_t>()[r + 1] = at;
  }
  return m;
}

Tensor positive(int64_t rows, int64_t cols, uint64_t seed) {
  const Tensor t = Tensor::host<float>({rows, cols});
  Random random(seed, 0);
  for (float& x : t.span<float>()) x = random.uniform() < 0.3 ? 0.0f : static_cast<float>(random.uniform());
  return t;
}

/// Σ over all columns, or over the row's entries, of h hᵀ or of h.
struct Fixed {
  std::vector<double> gram, sums;
};
Fixed fixedOf(const Csr& rows, int64_t r, const Tensor& h, bool all) {
  const int64_t f = h.cols();
  Fixed out{std::vector<double>(static_cast<size_t>(f * f)), std::vector<double>(static_cast<size_t>(f))};
  const auto add = [&](int64_t i) {
    const float* x = h.data<float>() + i * f;
    for (int64_t j = 0; j < f; ++j) {
      out.sums[j] += static_cast<double>(x[j]);
      for (int64_t k = 0; k < f; ++k) out.gram[j * f + k] += static_cast<double>(x[j]) * static_cast<double>(x[k]);
    }
  };
  const CsrView v = rows.view();
  if (all) {
    for (int64_t i = 0; i < h.rows(); ++i) add(i);
  } else {
    for (int64_t e = v.indptr[r]; e < v.indptr[r + 1]; ++e) add(v.indices[e]);
  }
  return out;
}

/// The gradient of the row's objective at w, and in `size` the sum of the magnitudes of its terms.
std::vector<double> gradient(const Csr& rows, int64_t r, const Tensor& h, const float* w, bool all, bool kl,
                             double lambda, std::vector<double>& size) {
  const int64_t f = h.cols();
  const Fixed fixed = fixedOf(rows, r, h, all);
  std::vector<double> g(static_cast<size_t>(f));
  size.assign(static_cast<size_t>(f), 1e-30);
  const auto add = [&](int64_t k, double term) { g[k] += term, size[k] += std::abs(term); };
  for (int64_t k = 0; k < f; ++k) {
    add(k, lambda * static_cast<double>(w[k]));
    if (kl) add(k, fixed.sums[k]);
    for (int64_t j = 0; j < f && !kl; ++j) add(k, fixed.gram[k * f + j] * static_cast<double>(w[j]));
  }
  const CsrView v = rows.view();
  for (int64_t e = v.indptr[r]; e < v.indptr[r + 1]; ++e) {
    const float* x = h.data<float>() + v.indices[e] * f;
    double y = 0;
    for (int64_t k = 0; k < f; ++k) y += static_cast<double>(w[k]) * static_cast<double>(x[k]);
    if (kl && y == 0) continue;
    for (int64_t k = 0; k < f; ++k)
      add(k, -static_cast<double>(v.values[e]) * static_cast<double>(x[k]) / (kl ? y : 1));
  }
  return g;
}

}  // namespace

TEST(rows_come_to_their_minimum) {
  const int before = threadCount();
  const Csr rows = randomRows({1, 5, 0, 17, 64, 90, 8, 33, 2}, 90);
  for (const int64_t f : {1, 3, 8, 15, 33}) {
    const Tensor h = positive(90, f, 7);
    for (const bool all : {true, false}) {
      for (const bool kl : {true, false}) {
        std::vector<float> gram(static_cast<size_t>(f * f)), sums(static_cast<size_t>(f));
        const Fixed fixed = fixedOf(rows, 0, h, true);
        std::copy(fixed.gram.begin(), fixed.gram.end(), gram.begin());
        std::copy(fixed.sums.begin(), fixed.sums.end(), sums.begin());
        const std::vector<float> reg(static_cast<size_t>(rows.rows()), 0.1f);
        for (const Backend* backend : cpuBackends()) {
          useIsa(backend->isa);
          std::vector<float> runs[2];
          for (const int threads : {1, 4}) {
            setThreadCount(threads);
            std::vector<float>& w = runs[threads == 4];
            w.assign(static_cast<size_t>(rows.rows() * f), 0.5f);
            const NmfArgs args{.rows = rows.view(),
                               .fixed = {h.data<float>(), h.rows(), f},
                               .gram = all && !kl ? gram.data() : nullptr,
                               .sums = all && kl ? sums.data() : nullptr,
                               .reg = reg.data(),
                               .loss = kl ? NmfLoss::kl : NmfLoss::frobenius,
                               .passes = 600,
                               .out = w.data()};
            run(cpuBackend(), &Backend::nmf, "nmf", Exec{}, args);
          }
          CHECK(runs[0] == runs[1]);
          for (int64_t r = 0; r < rows.rows(); ++r) {
            const float* w = runs[0].data() + r * f;
            const bool empty = rows.view().indptr[r] == rows.view().indptr[r + 1];
            std::vector<double> size;
            const std::vector<double> g = gradient(rows, r, h, w, all, kl, 0.1, size);
            for (int64_t k = 0; k < f; ++k) {
              CHECK(w[k] >= 0 && std::isfinite(w[k]));
              if (empty) CHECK(w[k] == 0);
              else CHECK((w[k] > 1e-6f ? std::abs(g[k]) : -g[k]) <= 2e-3 * size[k]);
            }
          }
        }
      }
    }
  }
  useIsa(cpuBackends().front()->isa);
  setThreadCount(before);
}

TEST_MAIN()
