// Truncated singular value decomposition of a sparse matrix by restarted randomized block Krylov iteration.
//
// From a random block of k + oversampling directions, the space of (AᵀA)^j X for j up to `depth` is built and made
// orthonormal; the best directions of it (Rayleigh-Ritz) are the next block, until the residuals |AᵀA v - σ² v| of the
// k wanted ones fall under tolerance · σ₁², or no longer fall. Halko, Martinsson, Tropp, "Finding structure with
// randomness", SIAM Review 2011; Musco, Musco, "Randomized block Krylov methods for stronger and faster approximate
// SVD", NeurIPS 2015.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "core/csr.h"
#include "core/fields.h"
#include "core/job.h"

namespace topknot {

struct SvdOptions {
  int64_t k = 64;
  int64_t oversampling = 16;
  double tolerance = 1e-6;
  int64_t maxCycles = 50;
  int64_t seed = 42;
  std::optional<std::string> device;  // where products are computed; the CPU unless given
  int64_t deviceBytes = 0;            // that they may take there; 0: what is free
};
TOPKNOT_FIELDS(SvdOptions, k, oversampling, tolerance, maxCycles, seed, device, deviceBytes)

/// matrix ≈ u diag(s) vᵀ. The largest element of each v, by magnitude, is positive. Beyond the rank s is 0, and so are
/// the vectors.
struct Svd {
  Tensor u, s, v;    // float32 [rows, k], [k] falling, [cols, k]
  double residual;   // the largest |AᵀA v - σ² v| / σ₁² of the k, when the iteration ended
  int64_t products;  // how many times the matrix was multiplied by a block, and its transpose as often
};
TOPKNOT_FIELDS(Svd, u, s, v, residual, products)

namespace ops {

/// `start`: right vectors [cols, any number] to start from, for instance those of a similar matrix.
Svd truncatedSvd(Job& job, Csr matrix, std::optional<Tensor> start, SvdOptions options);

}  // namespace ops
}  // namespace topknot
