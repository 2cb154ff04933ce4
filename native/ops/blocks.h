// What the building blocks of networks take and return beside their tensors.
#pragma once
#include <cstdint>
#include <optional>

#include "backend/blocks_args.h"
#include "core/fields.h"
#include "core/tensor.h"

namespace topknot {

TOPKNOT_ENUM(Unary, "none", "relu", "gelu", "geluTanh", "sigmoid", "tanh", "silu", "exp", "log", "sqrt")
TOPKNOT_ENUM(Binary, "add", "subtract", "multiply", "divide")
TOPKNOT_ENUM(Reduction, "sum", "mean", "max")

struct MatmulOptions {
  bool transposeA = false, transposeB = false;
  std::optional<Tensor> bias;      // float32 [n]
  Unary activation = Unary::none;  // any but exp, log and sqrt
};
TOPKNOT_FIELDS(MatmulOptions, transposeA, transposeB, bias, activation)

struct MatmulGradients {
  Tensor a, b;                 // float32, the shapes of a and b
  std::optional<Tensor> bias;  // where there is one
};
TOPKNOT_FIELDS(MatmulGradients, a, b, bias)

struct BinaryGradients {
  std::optional<Tensor> a, b;  // the shapes of a and b, where wanted
};
TOPKNOT_FIELDS(BinaryGradients, a, b)

struct LayerNormGradients {
  Tensor x;
  std::optional<Tensor> weight, bias;  // float32 [cols], where wanted
};
TOPKNOT_FIELDS(LayerNormGradients, x, weight, bias)

}  // namespace topknot
