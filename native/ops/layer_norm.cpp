// Layer normalisation over the last dimension, with its gradients.
#include <cmath>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

int64_t checkedColumns(const Tensor& x, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                       double eps) {
  expectFloat32(x, "x");
  require(x.rank() >= 1 && x.shape[x.rank() - 1] >= 1, ErrorCode::shape,
          "x: expected a last dimension of at least 1 but received shape ", text(x.shape));
  const int64_t cols = x.shape[x.rank() - 1];
  for (const auto& [t, name] : {std::pair{&weight, "weight"}, std::pair{&bias, "bias"}}) {
    if (!*t) continue;
    expectFloat32(**t, name);
    expectShape(**t, name, Shape{cols}, "the last dimension of x");
    expectSameDevice(**t, name, x, "x");
  }
  require(eps >= 0 && std::isfinite(static_cast<float>(eps)), ErrorCode::range,
          "eps: expected a finite number of 0 or more but received ", eps);
  return cols;
}

const float* dataOf(const std::optional<Tensor>& t) { return t ? t->data<float>() : nullptr; }

}  // namespace

namespace ops {

Tensor layerNorm(Stream& stream, Tensor x, std::optional<Tensor> weight, std::optional<Tensor> bias, double eps) {
  const int64_t cols = checkedColumns(x, weight, bias, eps);
  Tensor out = empty<float>(x.device(), x.shape);
  out.pending = stream.enqueue([=](const Exec& exec) {
    waitFor(x);
    if (weight) waitFor(*weight);
    if (bias) waitFor(*bias);
    const LayerNormArgs args{.x = x.data<float>(),
                             .weight = dataOf(weight),
                             .bias = dataOf(bias),
                             .rows = x.count() / cols,
                             .cols = cols,
                             .eps = static_cast<float>(eps),
                             .out = out.data<float>()};
    run(x.device(), &Backend::layerNorm, "layerNorm", exec, args);
  });
  return out;
}

LayerNormGradients layerNormBackward(Stream& stream, Tensor outGradient, Tensor x, std::optional<Tensor> weight,
                                     bool biasWanted, double eps) {
  const int64_t cols = checkedColumns(x, weight, std::nullopt, eps);
  expectFloat32(outGradient, "outGradient");
  expectShape(outGradient, "outGradient", x.shape, "that of x");
  expectSameDevice(outGradient, "outGradient", x, "x");
  LayerNormGradients result{empty<float>(x.device(), x.shape), std::nullopt, std::nullopt};
  if (weight) result.weight = empty<float>(x.device(), {cols});
  if (biasWanted) result.bias = empty<float>(x.device(), {cols});
  const auto pending = stream.enqueue([=](const Exec& exec) {
    waitFor({&outGradient, &x});
    if (weight) waitFor(*weight);
    const LayerNormGradientArgs args{.x = x.data<float>(),
                                     .weight = dataOf(weight),
                                     .gradient = outGradient.data<float>(),
                                     .rows = x.count() / cols,
                                     .cols = cols,
                                     .eps = static_cast<float>(eps),
                                     .out = result.x.data<float>(),
                                     .weightGradient = result.weight ? result.weight->data<float>() : nullptr,
                                     .biasGradient = result.bias ? result.bias->data<float>() : nullptr};
    run(x.device(), &Backend::layerNormGradient, "layerNormGradient", exec, args);
  });
  result.x.pending = pending;
  if (result.weight) result.weight->pending = pending;
  if (result.bias) result.bias->pending = pending;
  return result;
}

}  // namespace ops
}  // namespace topknot
