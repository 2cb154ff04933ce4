// The step δ of a row along a block π solves, with A and b of the whole system (backend/als_args.h) and predictions ŷ,
//   (gram_ππ + Σ w y_π y_πᵀ + λ I) δ = (b - A x)_π = Σ (t - w ŷ) y_π - (gram x)_π - λ x_π,
// which is again the system of a half-sweep, in blockSize dimensions: the Cholesky kernel solves it. Between blocks
// only the predictions of the entries are carried on.
#include "models/als_subspace.h"

#include <algorithm>

#include "backend/registry.h"
#include "models/factors.h"

namespace topknot {
namespace {

/// Calls body(row of m from column `begin` on, row of `block`, row) for all rows; `block` has `size` columns.
template <typename F>
void eachRow(Job& job, const Tensor& m, int64_t begin, float* block, int64_t size, F&& body) {
  parallelFor(m.rows(), 1024, job.exec(), [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) body(m.data<float>() + r * m.cols() + begin, block + r * size, r);
  });
  job.checkCancelled();
}

}  // namespace

void solveSubspaces(Job& job, const Csr& rows, const std::vector<float>& reg, const Tensor& fixed, const Tensor& gram,
                    float bonus, int64_t blockSize, const Tensor& out) {
  const int64_t f = fixed.cols();
  const CsrView v = rows.view();
  const Device device = fixed.device();
  for (int64_t u = 0; u < v.rows; ++u) {
    if (v.indptr[u] == v.indptr[u + 1]) std::fill_n(out.data<float>() + u * f, f, 0.0f);
  }
  // Memory of the blocks, kept from one to the next.
  const int64_t widest = std::min(blockSize, f);
  const Tensor scores = Tensor::host<float>({rows.nnz()}), targets = Tensor::host<float>({rows.nnz()});
  const Tensor offsets = Tensor::host<float>({v.rows, widest}), steps = Tensor::host<float>({v.rows, widest});
  const Tensor fixedBlock = Tensor::host<float>({fixed.rows(), widest}),
               blockGram = Tensor::host<float>({widest, widest});
  float *offset = offsets.data<float>(), *step = steps.data<float>(), *y = fixedBlock.data<float>();

  const auto addScores = [&](const MatrixView& left, const MatrixView& right, bool add) {
    run(device, &Backend::csrScores, "csrScores", job.exec(), CsrScoresArgs{v, left, right, add, scores.data<float>()});
    job.checkCancelled();
  };
  addScores(view(out), view(fixed), false);
  for (int64_t begin = 0; begin < f; begin += blockSize) {
    const int64_t size = std::min(blockSize, f - begin);
    parallelFor(rows.nnz(), 1 << 15, job.exec(), [&](int64_t from, int64_t to, int) {
      for (int64_t e = from; e < to; ++e) {
        const float w = v.values[e];
        targets.data<float>()[e] = w + bonus - w * scores.data<float>()[e];
      }
    });
    eachRow(job, out, begin, offset, size, [&](const float* x, float* to, int64_t u) {
      for (int64_t k = 0; k < size; ++k) to[k] = -reg[static_cast<size_t>(u)] * x[k];
    });
    run(device, &Backend::matmul, "matmul", job.exec(),
        MatmulArgs{v.rows, size, f, {out.data<float>(), f}, {gram.data<float>() + begin, f}, offset, size, -1, 1});
    eachRow(job, fixed, begin, y, size, [&](const float* from, float* to, int64_t) { std::copy_n(from, size, to); });
    for (int64_t i = 0; i < size; ++i) {
      std::copy_n(gram.data<float>() + (begin + i) * f + begin, size, blockGram.data<float>() + i * size);
    }
    run(device, &Backend::alsCholesky, "alsCholesky", job.exec(),
        AlsArgs{v,
                {y, fixed.rows(), size},
                blockGram.data<float>(),
                reg.data(),
                bonus,
                0,
                step,
                targets.data<float>(),
                offset});
    eachRow(job, out, begin, step, size, [&](float* x, const float* by, int64_t) {
      for (int64_t k = 0; k < size; ++k) x[k] += by[k];
    });
    if (begin + size < f) addScores({step, v.rows, size}, {y, fixed.rows(), size}, true);
  }
}

}  // namespace topknot
