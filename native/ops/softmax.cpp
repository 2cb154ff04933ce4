// Softmax and its logarithm over the last dimension, with their gradients.
#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

int64_t columnsOf(const Tensor& x, const char* name) {
  expectFloat32(x, name);
  require(x.rank() >= 1, ErrorCode::shape, name, ": expected at least one dimension but received shape ",
          text(x.shape));
  return x.shape[x.rank() - 1];
}

int64_t rowsOf(const Tensor& x, int64_t cols) { return cols ? x.count() / cols : 0; }

}  // namespace

namespace ops {

Tensor softmax(Stream& stream, Tensor x, bool log) {
  const int64_t cols = columnsOf(x, "x");
  Tensor out = empty<float>(x.device(), x.shape);
  out.pending = stream.enqueue([=](const Exec& exec) {
    waitFor(x);
    const SoftmaxArgs args{x.data<float>(), rowsOf(x, cols), cols, log, out.data<float>()};
    run(x.device(), &Backend::softmax, "softmax", exec, args);
  });
  return out;
}

Tensor softmaxBackward(Stream& stream, Tensor outGradient, Tensor out, bool log) {
  const int64_t cols = columnsOf(out, "out");
  expectFloat32(outGradient, "outGradient");
  expectShape(outGradient, "outGradient", out.shape, "that of out");
  expectSameDevice(outGradient, "outGradient", out, "out");
  Tensor result = empty<float>(out.device(), out.shape);
  result.pending = stream.enqueue([=](const Exec& exec) {
    waitFor({&outGradient, &out});
    const SoftmaxGradientArgs args{.y = out.data<float>(),
                                   .gradient = outGradient.data<float>(),
                                   .rows = rowsOf(out, cols),
                                   .cols = cols,
                                   .log = log,
                                   .out = result.data<float>()};
    run(out.device(), &Backend::softmaxGradient, "softmaxGradient", exec, args);
  });
  return result;
}

}  // namespace ops
}  // namespace topknot
