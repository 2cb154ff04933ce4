// What the matrix product is given.
#pragma once
#include <cstdint>

#include "backend/blocks_args.h"
#include "backend/embedding_args.h"

namespace topknot {

/// op(X): element (i, j) is data[i * stride + j], or data[j * stride + i] when transposed. float32, float16 or
/// bfloat16.
struct MatmulOperand {
  const void* data;
  int64_t stride;
  bool transposed = false;
  RowFormat format = RowFormat::float32;
};

/// Where the matrices of a batch of products start, as strides over up to six dimensions, the last one fastest. In
/// elements; a stride of 0 lets products share an operand.
struct MatmulBatch {
  static constexpr int maxRank = 6;
  int32_t rank = 0;
  int64_t dims[maxRank] = {}, aStride[maxRank] = {}, bStride[maxRank] = {};
  int64_t cStride = 0;  // between one result and the next

  constexpr int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  constexpr int64_t start(const int64_t (&strides)[maxRank], int64_t product) const {
    int64_t at = 0;
    for (int i = rank - 1; i >= 0; product /= dims[i--]) at += product % dims[i] * strides[i];
    return at;
  }
};

/// c = f(alpha op(a) op(b) + beta c + bias) for every product of the batch, in float32; op(a) is [m, k], op(b) [k, n].
/// With beta 0 what c holds does not matter. An element of c depends on its own row and column alone, and on nothing
/// else about how the work is cut.
struct MatmulArgs {
  int64_t m, n, k;
  MatmulOperand a, b;
  float* c;
  int64_t cStride;  // element (i, j) at c[i * cStride + j]
  float alpha = 1, beta = 0;
  const float* bias = nullptr;  // [n], for every row; null: none
  Unary activation = Unary::none;
  MatmulBatch batch{};
};

}  // namespace topknot
