// What models that learn factors by gradients share: rows padded for kernels, their random start, checks.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "backend/own_items.h"
#include "core/csr.h"
#include "core/job.h"
#include "core/tensor.h"

namespace topknot {

/// Rows of factors lie 64-byte aligned, zeros beyond the factors.
inline int64_t strideOf(int64_t factors) { return (factors + 15) / 16 * 16; }
Tensor paddedRows(const Tensor& factors);
Tensor trimmedRows(const Tensor& rows, int64_t factors);

/// Gives rows of zeros N(0, std²) in the first `factors` places, keyed by (seed, first + row).
void startRows(Job& job, const Tensor& rows, int64_t factors, double std, int64_t seed, uint64_t first);
/// Keys of users' rows, beyond those of items.
inline constexpr uint64_t userRowKeys = uint64_t{1} << 40;

/// Makes the rows of `factors` zero that have no entries in `m`.
void clearEmptyRows(const Csr& m, const Tensor& factors);

/// The bits of OwnItemsView.
std::vector<uint8_t> ownItemBits(Job& job, const Csr& rows);

/// Reads a matrix whole, and throws unless it is valid, not empty in either direction, with fewer than 2^32 entries.
void expectInteractions(Job& job, const Csr& m, const char* name);
void expectFloats(const Tensor& t, const char* name, std::initializer_list<int64_t> shape);
void expectNumber(double value, double least, double most, const char* name);
/// Too large a step makes factors grow without bound: ERR_VALUE.
void expectBounded(Job& job, const Tensor& factors, double learningRate, double regularization);

}  // namespace topknot
