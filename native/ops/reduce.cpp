// Sums, means and maxima along one dimension or over all elements, with their gradients.
#include <vector>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

/// How a tensor is cut: [outer, length, inner], reduced along the middle.
struct Cut {
  int64_t outer = 1, length = 1, inner = 1;
  Shape out;

  Cut(const Tensor& x, Reduction kind, std::optional<int64_t> axis, bool keepDims) {
    expectFloat32(x, "x");
    const int64_t rank = x.rank();
    require(!axis || (*axis >= -rank && *axis < rank), ErrorCode::range, "axis: expected ", -rank, " to ", rank - 1,
            " for shape ", text(x.shape), " but received ", axis.value_or(0));
    const int64_t at = axis ? (*axis < 0 ? *axis + rank : *axis) : 0;
    std::vector<int64_t> dims;
    for (int64_t i = 0; i < rank; ++i) {
      const int64_t d = x.shape[static_cast<int>(i)];
      const bool reduced = !axis || i == at;
      (reduced ? length : i < at ? outer : inner) *= d;
      if (!reduced) dims.push_back(d);
      else if (keepDims) dims.push_back(1);
    }
    out = Shape(dims);
    require(kind == Reduction::sum || length > 0 || outer * inner == 0, ErrorCode::shape,
            "x: expected at least one element to take the ", kind == Reduction::max ? "maximum" : "mean",
            " of but received shape ", text(x.shape));
  }
};

}  // namespace

namespace ops {

Tensor reduce(Stream& stream, Tensor x, Reduction kind, std::optional<int64_t> axis, bool keepDims) {
  const Cut cut(x, kind, axis, keepDims);
  Tensor out = empty<float>(x.device(), cut.out);
  out.pending = stream.enqueue([=](const Exec& exec) {
    waitFor(x);
    const ReduceArgs args{kind, x.data<float>(), cut.outer, cut.length, cut.inner, out.data<float>()};
    run(x.device(), &Backend::reduce, "reduce", exec, args);
  });
  return out;
}

Tensor reduceBackward(Stream& stream, Tensor outGradient, Tensor x, Reduction kind, std::optional<int64_t> axis,
                      bool keepDims) {
  const Cut cut(x, kind, axis, keepDims);
  expectFloat32(outGradient, "outGradient");
  expectShape(outGradient, "outGradient", cut.out, "that of the result");
  expectSameDevice(outGradient, "outGradient", x, "x");
  Tensor out = empty<float>(x.device(), x.shape);
  out.pending = stream.enqueue([=](const Exec& exec) {
    waitFor({&outGradient, &x});
    const ReduceGradientArgs args{kind,       x.data<float>(), outGradient.data<float>(), cut.outer,
                                  cut.length, cut.inner,       out.data<float>()};
    run(x.device(), &Backend::reduceGradient, "reduceGradient", exec, args);
  });
  return out;
}

}  // namespace ops
}  // namespace topknot
