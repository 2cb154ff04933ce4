// Matrices as kernels are given them, inside the plain structs of *_args.h: pointers, the same for every backend and
// safe to pass to a plugin. All matrices are row-major. Shapes have been checked by ops/; kernels only assert.
#pragma once
#include <cstdint>

namespace topknot {

struct MatrixView {
  const float* data;
  int64_t rows, cols;

  const float* row(int64_t i) const { return data + i * cols; }
};

enum class FloatType : int32_t { float32, float16, bfloat16 };

/// A matrix of float32, or of 16-bit floats, which are converted as they are read.
struct FloatMatrixView {
  const void* data;
  FloatType type;
  int64_t rows, cols;

  int64_t rowBytes() const { return cols * (type == FloatType::float32 ? 4 : 2); }
  const char* row(int64_t i) const { return static_cast<const char*>(data) + i * rowBytes(); }
};

struct CsrView {
  const int64_t* indptr;   // [rows + 1]
  const int32_t* indices;  // [nnz], rising within a row
  const float* values;     // [nnz]
  int64_t rows, cols;
};

/// Which items may be returned for a query. Applied before selection.
struct FilterView {
  const uint64_t* allowed = nullptr;  // bit i of word i / 64 set: item i may be returned; null: all may
  const int64_t* seenPtr = nullptr;   // CSR of item ids not to return to a row; null: none
  const int32_t* seenIds = nullptr;
  const int32_t* seenRows = nullptr;  // [queries] row of the CSR for each query; null: query q has row q
};

}  // namespace topknot
