// What every model that learns factor matrices from a sparse matrix needs: checks and random starts.
#pragma once
#include <cstdint>

#include "backend/views.h"
#include "core/csr.h"
#include "core/job.h"
#include "core/tensor.h"

namespace topknot {

/// Throws ERR_RANGE unless `value` is finite and from `least` on.
void checkNumber(double value, double least, const char* name);

/// Throws unless `t` is float32 [rows, factors].
void checkFactors(const Tensor& t, const char* name, int64_t rows, int64_t factors);

/// Reads a whole matrix once, because kernels trust ids and values: throws for ids out of range and values that are not
/// finite.
void checkEntries(Job& job, const Csr& m, const char* name);

/// The same, of both orientations of one matrix, which must have a row and a column.
void checkBothWays(Job& job, const Csr& users, const Csr& items);

inline MatrixView view(const Tensor& t) { return {t.data<float>(), t.rows(), t.cols()}; }

/// Random rows of users are keyed from here on, beyond those of items.
inline constexpr uint64_t userKeys = uint64_t{1} << 40;

/// N(0, std²) in the first `factors` of `stride` columns, zeros in the others; each row keyed by (seed, first + row).
Tensor randomFactors(Job& job, int64_t rows, int64_t factors, int64_t stride, double std, int64_t seed, uint64_t first);

Tensor copyOf(const Tensor& t);

}  // namespace topknot
