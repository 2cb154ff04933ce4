// What the building blocks of neural networks are given: elementwise functions, reductions, softmax, layer norm. All
// tensors are float32 and row-major. A NaN in goes through to what is computed from it.
#pragma once
#include <cstdint>

namespace topknot {

enum class Unary : int32_t { none, relu, gelu, geluTanh, sigmoid, tanh, silu, exp, log, sqrt };
enum class Binary : int32_t { add, subtract, multiply, divide };
enum class Reduction : int32_t { sum, mean, max };

/// out = f(x).
struct UnaryArgs {
  Unary function;
  const float* x;
  int64_t count;
  float* out;
};

/// out = f'(x) gradient. With `fromOut` x holds f's results instead: for relu, sigmoid and tanh, which can tell.
struct UnaryGradientArgs {
  Unary function;
  const float *x, *gradient;
  int64_t count;
  bool fromOut;
  float* out;
};

/// out[i] = a[..] op b[..] over up to eight dimensions, the last one fastest; a stride of 0 repeats an operand.
struct BinaryArgs {
  static constexpr int maxRank = 8;
  Binary function;
  const float *a, *b;
  int32_t rank;  // at least 1
  int64_t dims[maxRank], aStride[maxRank], bStride[maxRank];
  float* out;
};

/// out [outer, inner] from x [outer, length, inner].
struct ReduceArgs {
  Reduction kind;
  const float* x;
  int64_t outer, length, inner;
  float* out;
};

/// out [outer, length, inner] = the gradient of a reduction of x: of a maximum it goes to the first element that has
/// it.
struct ReduceGradientArgs {
  Reduction kind;
  const float *x, *gradient;  // gradient [outer, inner]; x is read for the maximum only
  int64_t outer, length, inner;
  float* out;
};

/// Of every row: out = exp(x) / Σ exp(x), or its logarithm. A row of -infinity alone gives zeros, or -infinity.
struct SoftmaxArgs {
  const float* x;
  int64_t rows, cols;
  bool log;
  float* out;
};

/// `y` is what the forward pass made: out = y (g - Σ g y), or g - exp(y) Σ g for the logarithm.
struct SoftmaxGradientArgs {
  const float *y, *gradient;
  int64_t rows, cols;
  bool log;
  float* out;
};

/// Of every row: out = (x - mean) / sqrt(variance + eps) * weight + bias. Ba, Kiros, Hinton 2016.
struct LayerNormArgs {
  const float *x, *weight, *bias;  // weight and bias [cols] or null
  int64_t rows, cols;
  float eps;
  float* out;
};

/// With n = (x - mean) r, r = 1 / sqrt(variance + eps) and h = g weight: out = r (h - mean(h) - n mean(h n)),
/// weightGradient = Σ g n and biasGradient = Σ g over the rows.
struct LayerNormGradientArgs {
  const float *x, *weight, *gradient;  // weight or null
  int64_t rows, cols;
  float eps;
  float *out, *weightGradient, *biasGradient;  // the last two [cols] or null
};

}  // namespace topknot
