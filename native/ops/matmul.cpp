// Products of matrices and of batches of them, with a bias and an activation, and their gradients.
#include <algorithm>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/broadcast.h"
#include "ops/ops.h"
#include "ops/queued.h"

namespace topknot {
namespace {

RowFormat formatOf(const Tensor& t, const char* name) {
  if (t.dtype == DType::float32) return RowFormat::float32;
  if (t.dtype == DType::float16) return RowFormat::float16;
  require(t.dtype == DType::bfloat16, ErrorCode::dtype, name, ": expected float32, float16 or bfloat16 but received ",
          std::string(text(t.dtype)));
  return RowFormat::bfloat16;
}

/// One operand of a batch of products: a matrix, how it is read, and its strides over the batch.
struct Side {
  const void* data;
  RowFormat format;
  int64_t stride;
  bool transposed;
  std::vector<int64_t> batchStride;

  Side flipped() const {
    Side s = *this;
    s.transposed = !transposed;
    return s;
  }
  MatmulOperand operand() const { return {data, stride, transposed, format}; }
};

/// A call whose shapes have been checked.
class MatmulCall {
 public:
  MatmulCall(Tensor a, Tensor b, MatmulOptions options)
      : a_(std::move(a)), b_(std::move(b)), options_(std::move(options)), batch_(batchOf(a_, b_)) {
    const int aLast = a_.rank() - 1, bLast = b_.rank() - 1;
    m_ = a_.shape[options_.transposeA ? aLast : aLast - 1], k_ = a_.shape[options_.transposeA ? aLast - 1 : aLast];
    n_ = b_.shape[options_.transposeB ? bLast - 1 : bLast];
    const int64_t bDepth = b_.shape[options_.transposeB ? bLast : bLast - 1];
    require(k_ == bDepth, ErrorCode::shape, "b: expected ", k_, " ", options_.transposeB ? "columns" : "rows",
            ", one for each ", options_.transposeA ? "row" : "column", " of a, but received shape ", text(b_.shape),
            " with a ", text(a_.shape));
    std::vector<int64_t> dims = batch_.dims;
    dims.push_back(m_), dims.push_back(n_);
    outShape_ = Shape(dims);
    if (options_.bias) {
      expectFloat32(*options_.bias, "bias");
      expectShape(*options_.bias, "bias", Shape{n_}, "a number for each column of the product");
      expectSameDevice(*options_.bias, "bias", a_, "a");
    }
    require(options_.activation <= Unary::silu, ErrorCode::argument,
            "activation: expected 'none', 'relu', 'gelu', 'geluTanh', 'sigmoid', 'tanh' or 'silu'");
    // Rows that meet the same b are one matrix with more rows.
    const std::span matrices(b_.shape.dims().data(), static_cast<size_t>(bLast - 1));
    const bool shared = std::all_of(matrices.begin(), matrices.end(), [](int64_t d) { return d == 1; });
    if (shared && !options_.transposeA) {
      m_ *= batch_.count();
      batch_.dims.clear(), batch_.aStride.clear(), batch_.bStride.clear();
    }
  }

  const Shape& outShape() const { return outShape_; }
  const Tensor& a() const { return a_; }
  const Tensor& b() const { return b_; }
  const MatmulOptions& options() const { return options_; }

  void wait() const {
    waitFor({&a_, &b_});
    if (options_.bias) waitFor(*options_.bias);
  }

  /// out = a b, with the bias and `activation`.
  void multiply(const Exec& exec, Unary activation, float* out) const {
    multiply(exec, sideA(), sideB(), m_, n_, k_, out, options_.bias ? options_.bias->data<float>() : nullptr,
             activation);
  }

  /// The gradients of a and b from `g`, that of the product. Stored as a and b are: aᵀ is a product of its own.
  void gradientA(const Exec& exec, const float* g, const Tensor& out) const {
    const Side sums = sideOf(g), b = sideB();
    summed(exec, a_, out, [&](float* to) {
      if (options_.transposeA) multiply(exec, b, sums.flipped(), k_, m_, n_, to);
      else multiply(exec, sums, b.flipped(), m_, k_, n_, to);
    });
  }
  void gradientB(const Exec& exec, const float* g, const Tensor& out) const {
    const Side sums = sideOf(g), a = sideA();
    summed(exec, b_, out, [&](float* to) {
      if (options_.transposeB) multiply(exec, sums.flipped(), a, n_, k_, m_, to);
      else multiply(exec, a.flipped(), sums, k_, n_, m_, to);
    });
  }

  int64_t rows() const { return batch_.count() * m_; }
  int64_t cols() const { return n_; }

 private:
  static Broadcast batchOf(const Tensor& a, const Tensor& b) {
    formatOf(a, "a");
    require(b.dtype == a.dtype, ErrorCode::dtype, "b: expected ", std::string(text(a.dtype)), ", as a, but received ",
            std::string(text(b.dtype)));
    for (const auto& [t, name] : {std::pair{&a, "a"}, std::pair{&b, "b"}}) {
      require(t->rank() >= 2, ErrorCode::shape, name, ": expected at least two dimensions but received shape ",
              text(t->shape), ": reshape a vector to a matrix");
    }
    expectSameDevice(b, "b", a, "a");
    const auto leading = [](const Tensor& t) { return t.shape.dims().first(static_cast<size_t>(t.rank() - 2)); };
    return Broadcast(leading(a), leading(b), "a before its last two dimensions", "b before its last two dimensions");
  }

  static std::vector<int64_t> times(std::vector<int64_t> strides, int64_t size) {
    for (int64_t& s : strides) s *= size;
    return strides;
  }
  Side sideA() const {
    return {a_.buffer->data(), formatOf(a_, "a"), options_.transposeA ? m_ : k_, options_.transposeA,
            times(batch_.aStride, m_ * k_)};
  }
  Side sideB() const {
    return {b_.buffer->data(), formatOf(b_, "b"), options_.transposeB ? k_ : n_, options_.transposeB,
            times(batch_.bStride, k_ * n_)};
  }
  /// A matrix [m, n] for every product of the batch.
  Side sideOf(const float* g) const {
    Side s{g, RowFormat::float32, n_, false, batch_.dims};
    int64_t step = m_ * n_;
    for (size_t i = s.batchStride.size(); i-- > 0; step *= batch_.dims[i]) s.batchStride[i] = step;
    return s;
  }

  void multiply(const Exec& exec, const Side& x, const Side& y, int64_t m, int64_t n, int64_t k, float* out,
                const float* bias = nullptr, Unary activation = Unary::none) const {
    MatmulArgs args{.m = m, .n = n, .k = k, .a = x.operand(), .b = y.operand(), .c = out, .cStride = n};
    args.bias = bias, args.activation = activation;
    args.batch.rank = static_cast<int32_t>(batch_.dims.size());
    std::copy(batch_.dims.begin(), batch_.dims.end(), args.batch.dims);
    std::copy(x.batchStride.begin(), x.batchStride.end(), args.batch.aStride);
    std::copy(y.batchStride.begin(), y.batchStride.end(), args.batch.bStride);
    args.batch.cStride = m * n;
    run(a_.device(), &Backend::matmul, "matmul", exec, args);
  }

  /// out = what `make` writes for every product, summed over those that share the operand x.
  void summed(const Exec& exec, const Tensor& x, const Tensor& out, const auto& make) const {
    const auto last = x.shape.dims().last(2);
    std::vector<int64_t> full = batch_.dims;
    full.insert(full.end(), last.begin(), last.end());
    if (batch_.dims.empty() || Shape(full).count() == x.count()) return make(out.data<float>());
    const Tensor all = empty<float>(a_.device(), Shape(full));
    make(all.data<float>());
    sumRepeated(exec, a_.device(), all.data<float>(), full, x.shape.dims(), out.data<float>());
  }

  Tensor a_, b_;
  MatmulOptions options_;
  Broadcast batch_;
  int64_t m_, n_, k_;
  Shape outShape_;
};

}  // namespace

namespace ops {

Tensor matmul(Stream& stream, Tensor a, Tensor b, MatmulOptions options) {
  const MatmulCall call(std::move(a), std::move(b), std::move(options));
  Tensor out = empty<float>(call.a().device(), call.outShape());
  out.pending = stream.enqueue([=](const Exec& exec) {
    call.wait();
    call.multiply(exec, call.options().activation, out.data<float>());
  });
  return out;
}

MatmulGradients matmulBackward(Stream& stream, Tensor outGradient, Tensor a, Tensor b, Tensor out,
                               MatmulOptions options) {
  const MatmulCall call(std::move(a), std::move(b), std::move(options));
  for (const auto& [t, name] : {std::pair{&outGradient, "outGradient"}, std::pair{&out, "out"}}) {
    expectFloat32(*t, name);
    expectShape(*t, name, call.outShape(), "that of the product");
    expectSameDevice(*t, name, call.a(), "a");
  }
  const Device device = call.a().device();
  MatmulGradients result{empty<float>(device, call.a().shape), empty<float>(device, call.b().shape), std::nullopt};
  if (call.options().bias) result.bias = empty<float>(device, call.options().bias->shape);
  const auto pending = stream.enqueue([=](const Exec& exec) {
    call.wait();
    waitFor({&outGradient, &out});
    Tensor g = outGradient;  // of the product, before bias and activation
    const Unary f = call.options().activation;
    if (f != Unary::none) {
      // These three tell their slope from their results; for the others the product is made again.
      const bool fromOut = f == Unary::relu || f == Unary::sigmoid || f == Unary::tanh;
      Tensor before = out;
      if (!fromOut) {
        before = empty<float>(device, out.shape);
        call.multiply(exec, Unary::none, before.data<float>());
      }
      g = empty<float>(device, out.shape);
      const UnaryGradientArgs args{.function = f,
                                   .x = before.data<float>(),
                                   .gradient = outGradient.data<float>(),
                                   .count = g.count(),
                                   .fromOut = fromOut,
                                   .out = g.data<float>()};
      run(device, &Backend::unaryGradient, "unaryGradient", exec, args);
    }
    call.gradientA(exec, g.data<float>(), result.a);
    call.gradientB(exec, g.data<float>(), result.b);
    if (!result.bias) return;
    const ReduceArgs args{Reduction::sum, g.data<float>(), 1, call.rows(), call.cols(), result.bias->data<float>()};
    run(device, &Backend::reduce, "reduce", exec, args);
  });
  result.a.pending = result.b.pending = pending;
  if (result.bias) result.bias->pending = pending;
  return result;
}

}  // namespace ops
}  // namespace topknot
