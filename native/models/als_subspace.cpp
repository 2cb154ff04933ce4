// The step δ of a row along a block π solves, with A and b of the whole system (backend/als_args.h) and predictions ŷ,
//   (gram_ππ + Σ w y_π y_πᵀ + λ I) δ = (b - A x)_π = Σ (t - w ŷ) y_π - (gram x)_π - λ x_π,
// which is again the system of a half-sweep, in blockSize dimensions: the Cholesky kernel solves it. Between blocks
// only the predictions of the entries are carried on.
#include "models/als_subspace.h"

#include <algorithm>

#include "backend/memory.h"
#include "backend/registry.h"
#include "models/factors.h"

namespace topknot {

void solveSubspaces(Job& job, const Csr& rows, const float* reg, const Tensor& fixed, const Tensor& gram, float bonus,
                    int64_t blockSize, const Tensor& out) {
  const int64_t f = fixed.cols();
  const CsrView v = rows.view();
  const Device device = fixed.device();
  // Memory of the blocks, kept from one to the next.
  const int64_t widest = std::min(blockSize, f);
  const auto floats = [&](const Shape& shape) { return empty<float>(device, shape); };
  const Tensor scores = floats({rows.nnz()}), targets = floats({rows.nnz()}), gramBlock = floats({widest, widest});
  const Tensor offsets = floats({v.rows, widest}), steps = floats({v.rows, widest});
  const Tensor fixedBlock = floats({fixed.rows(), widest});

  const auto addScores = [&](const MatrixView& left, const MatrixView& right, bool add) {
    run(device, &Backend::csrScores, "csrScores", job.exec(), CsrScoresArgs{v, left, right, add, scores.data<float>()});
    job.checkCancelled();
  };
  addScores(view(out), view(fixed), false);
  for (int64_t begin = 0; begin < f; begin += blockSize) {
    const int64_t size = std::min(blockSize, f - begin);
    float *offset = offsets.data<float>(), *step = steps.data<float>(), *y = fixedBlock.data<float>();
    run(device, &Backend::alsBlock, "alsBlock", job.exec(),
        AlsBlockArgs{v, view(out), view(fixed), gram.data<float>(), reg, scores.data<float>(), bonus, begin, size, y,
                     gramBlock.data<float>(), offset, targets.data<float>()});
    job.checkCancelled();
    run(device, &Backend::matmul, "matmul", job.exec(),
        MatmulArgs{v.rows, size, f, {out.data<float>(), f}, {gram.data<float>() + begin, f}, offset, size, -1, 1});
    run(device, &Backend::alsCholesky, "alsCholesky", job.exec(),
        AlsArgs{
            v, {y, fixed.rows(), size}, gramBlock.data<float>(), reg, bonus, 0, step, targets.data<float>(), offset});
    job.checkCancelled();
    run(device, &Backend::alsStep, "alsStep", job.exec(), AlsStepArgs{v, step, f, begin, size, out.data<float>()});
    job.checkCancelled();
    if (begin + size < f) addScores({step, v.rows, size}, {y, fixed.rows(), size}, true);
  }
}

}  // namespace topknot
