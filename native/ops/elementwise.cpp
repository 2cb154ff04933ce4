// Functions of one and of two tensors, element by element, with their gradients.
#include <algorithm>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/broadcast.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

/// out = a op b, all of them on one device and ready; out has the shape that a and b broadcast to.
void combine(const Exec& exec, Binary function, const Tensor& a, const Tensor& b, const Tensor& out) {
  const Broadcast full = Broadcast(a.shape.dims(), b.shape.dims(), "a", "b").merged();
  BinaryArgs args{
      .function = function, .a = a.data<float>(), .b = b.data<float>(), .rank = 1, .out = out.data<float>()};
  args.dims[0] = 1, args.aStride[0] = args.bStride[0] = 0;
  if (!full.dims.empty()) args.rank = static_cast<int32_t>(full.dims.size());
  std::copy(full.dims.begin(), full.dims.end(), args.dims);
  std::copy(full.aStride.begin(), full.aStride.end(), args.aStride);
  std::copy(full.bStride.begin(), full.bStride.end(), args.bStride);
  run(a.device(), &Backend::binary, "binary", exec, args);
}

Tensor combined(const Exec& exec, Binary function, const Tensor& a, const Tensor& b) {
  Tensor out = empty<float>(a.device(), Shape(Broadcast(a.shape.dims(), b.shape.dims(), "a", "b").dims));
  combine(exec, function, a, b, out);
  return out;
}

Shape checkedPair(const Tensor& a, const Tensor& b) {
  expectFloat32(a, "a");
  expectFloat32(b, "b");
  expectSameDevice(b, "b", a, "a");
  return Shape(Broadcast(a.shape.dims(), b.shape.dims(), "a", "b").dims);
}

Tensor number(float value, Device device) {
  Tensor t = Tensor::host<float>(Shape{});
  *t.data<float>() = value;
  return copyTo(t, device);
}

/// The gradient of a function of a and b with respect to one of them, before it is summed over what that one repeats.
Tensor slope(const Exec& exec, Binary function, bool first, const Tensor& g, const Tensor& a, const Tensor& b) {
  switch (function) {
    case Binary::add:
      return g;
    case Binary::subtract:
      return first ? g : combined(exec, Binary::multiply, g, number(-1, g.device()));
    case Binary::multiply:
      return combined(exec, Binary::multiply, g, first ? b : a);
    case Binary::divide: {
      const Tensor quotient = combined(exec, Binary::divide, g, b);
      if (first) return quotient;  // of a / b by b: -g / b * (a / b)
      const Tensor ratio =
          combined(exec, Binary::divide, combined(exec, Binary::multiply, a, number(-1, a.device())), b);
      return combined(exec, Binary::multiply, quotient, ratio);
    }
  }
  fail(ErrorCode::internal, "unknown function");
}

}  // namespace

namespace ops {

Tensor unary(Stream& stream, Tensor x, Unary function) {
  expectFloat32(x, "x");
  Tensor out = empty<float>(x.device(), x.shape);
  out.pending = stream.enqueue([=](const Exec& exec) {
    waitFor(x);
    const UnaryArgs args{function, x.data<float>(), x.count(), out.data<float>()};
    run(x.device(), &Backend::unary, "unary", exec, args);
  });
  return out;
}

Tensor unaryBackward(Stream& stream, Tensor outGradient, Tensor x, Unary function) {
  expectFloat32(x, "x");
  expectFloat32(outGradient, "outGradient");
  expectShape(outGradient, "outGradient", x.shape, "that of x");
  expectSameDevice(outGradient, "outGradient", x, "x");
  Tensor out = empty<float>(x.device(), x.shape);
  out.pending = stream.enqueue([=](const Exec& exec) {
    waitFor({&outGradient, &x});
    const UnaryGradientArgs args{.function = function,
                                 .x = x.data<float>(),
                                 .gradient = outGradient.data<float>(),
                                 .count = x.count(),
                                 .fromOut = false,
                                 .out = out.data<float>()};
    run(x.device(), &Backend::unaryGradient, "unaryGradient", exec, args);
  });
  return out;
}

Tensor binary(Stream& stream, Tensor a, Tensor b, Binary function) {
  const Shape shape = checkedPair(a, b);
  Tensor out = empty<float>(a.device(), shape);
  out.pending = stream.enqueue([=](const Exec& exec) {
    waitFor({&a, &b});
    combine(exec, function, a, b, out);
  });
  return out;
}

BinaryGradients binaryBackward(Stream& stream, Tensor outGradient, Tensor a, Tensor b, Binary function, bool aWanted,
                               bool bWanted) {
  const Shape shape = checkedPair(a, b);
  expectFloat32(outGradient, "outGradient");
  expectShape(outGradient, "outGradient", shape, "that of the result");
  expectSameDevice(outGradient, "outGradient", a, "a");
  BinaryGradients result;
  const auto gradientOf = [&](const Tensor& x, bool first) {
    Tensor out = empty<float>(x.device(), x.shape);
    out.pending = stream.enqueue([=](const Exec& exec) {
      waitFor({&outGradient, &a, &b});
      const Tensor full = slope(exec, function, first, outGradient, a, b);
      sumRepeated(exec, a.device(), full.data<float>(), full.shape.dims(), x.shape.dims(), out.data<float>());
    });
    return out;
  };
  if (aWanted) result.a = gradientOf(a, true);
  if (bWanted) result.b = gradientOf(b, false);
  return result;
}

}  // namespace ops
}  // namespace topknot
