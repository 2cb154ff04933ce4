// Multi-head attention: shapes are checked at the call, what needs the elements when the stream gets there.
#include "ops/attention.h"

#include <algorithm>
#include <cmath>

#include "backend/memory.h"
#include "backend/registry.h"
#include "ops/ops.h"

namespace topknot {
namespace {

constexpr int64_t unlimited = int64_t{1} << 40;  // beyond every length, yet safe to add to one

/// k, v, and what the forward pass made of them: the element type of q.
void expectType(const Tensor& t, const char* name, DType dtype) {
  require(t.dtype == dtype, ErrorCode::dtype, name, ": expected ", std::string(text(dtype)), ", as q is, but received ",
          std::string(text(t.dtype)));
}

void expectRank(const Tensor& t, const char* name, int rank, const char* shape) {
  require(t.rank() == rank, ErrorCode::shape, name, ": expected ", shape, " but received shape ", text(t.shape));
}

void expectDevice(const Tensor& t, const char* name, const Tensor& q) {
  require(t.device() == q.device(), ErrorCode::device, name, ": expected to be on device '", text(q.device()),
          "', as q is, but is on '", text(t.device()), "'");
}

void expectFinite(const Tensor& t, const char* name, bool orMinusInfinity) {
  const Tensor host = copyTo(t, Device{});
  for (int64_t i = 0; i < host.count(); ++i) {
    const float x = t.dtype == DType::bfloat16 ? toFloat(host.data<BFloat16>()[i]) : host.data<float>()[i];
    require(std::isfinite(x) || (orMinusInfinity && x < 0), ErrorCode::value, name, ": expected ",
            orMinusInfinity ? "finite numbers or -Infinity" : "finite numbers", " but element ", i, " is ", x);
  }
}

/// A number that a kernel sets to 1 to tell of something.
class Flag {
 public:
  explicit Flag(Device device) : flag_(copyTo(Tensor::host<int32_t>({1}, true), device)) {}
  int32_t* data() const { return flag_.data<int32_t>(); }
  /// Waits for the kernels issued so far.
  bool raised() const { return *copyTo(flag_, Device{}).data<int32_t>() != 0; }

 private:
  Tensor flag_;
};

/// What the forward pass made, or a gradient of it.
void expectSaved(const Tensor& t, const char* name, const Shape& shape, const char* what, const Tensor& q) {
  require(t.shape == shape, ErrorCode::shape, name, ": expected shape ", text(shape), ", ", what, ", but received ",
          text(t.shape));
  expectDevice(t, name, q);
}

/// A call whose shapes have been checked. It keeps the tensors; problem() may only be asked for when they are there.
class AttentionCall {
 public:
  AttentionCall(Tensor q, Tensor k, Tensor v, AttentionOptions options)
      : q_(std::move(q)), k_(std::move(k)), v_(std::move(v)), options_(std::move(options)) {
    checkTensors();
    checkMask();
    checkBias();
    checkNumbers();
    bool known = true;
    for (const auto& [offsets, name, total] : offsets()) {
      checkOffsetsShape(*offsets, name);
      if (offsets->pending) known = false;
      else checkOffsets(*offsets, name, total);
    }
    if (known) checkBiasLengths();
  }

  const Tensor& q() const { return q_; }
  const Tensor& k() const { return k_; }
  const Tensor& v() const { return v_; }
  const Tensor* bias() const { return options_.bias ? &*options_.bias : nullptr; }
  int64_t heads() const { return q_.shape[1]; }
  Shape logSumExpShape() const { return packed() ? Shape{heads(), queries()} : Shape{batch(), heads(), queries()}; }

  /// Waits for every tensor, and rethrows the error of an operation that failed before.
  void wait() {
    for (const Tensor* t : {&q_, &k_, &v_}) {
      if (t->pending) t->pending->wait();
    }
    for (const std::optional<Tensor>* t : {&options_.keyMask, &options_.bias}) {
      if (*t && (*t)->pending) (*t)->pending->wait();
    }
    for (const auto& [offsets, name, total] : offsets()) {
      if (!offsets->pending) continue;
      offsets->pending->wait();
      checkOffsets(*offsets, name, total);
    }
    checkBiasLengths();
  }

  /// After wait(). The views hold as long as this object.
  AttentionProblem problem() {
    AttentionProblem p{};
    p.dtype = q_.dtype;
    p.batch = batch(), p.heads = heads(), p.kvHeads = k_.shape[1], p.dims = dims();
    p.queries = queries(), p.keys = keys();
    p.queryLayout = layout(q_), p.keyLayout = layout(k_);
    if (packed()) {
      queryOffsets_ = besideQ(widened(*options_.queryOffsets));
      keyOffsets_ = options_.keyOffsets ? besideQ(widened(*options_.keyOffsets)) : queryOffsets_;
      p.queryOffsets = queryOffsets_.data<int64_t>(), p.keyOffsets = keyOffsets_.data<int64_t>();
    }
    p.left = std::min(options_.left.value_or(unlimited), unlimited);
    p.right = options_.causal ? 0 : std::min(options_.right.value_or(unlimited), unlimited);
    p.scale = static_cast<float>(options_.scale.value_or(1 / std::sqrt(static_cast<double>(dims()))));
    if (options_.keyMask) p.keyMask = options_.keyMask->data<uint8_t>();
    if (const Tensor* b = bias()) p.bias = {b->data<float>(), b->shape[0], b->shape[1], b->shape[2], b->shape[3]};
    p.dropout = static_cast<float>(options_.dropout);
    p.seed = static_cast<uint64_t>(options_.seed);
    return p;
  }

  /// Says which argument made a result that is not finite: these, or one of the call's own.
  [[noreturn]] void failNotFinite(const std::vector<std::pair<const Tensor*, const char*>>& others = {}) const {
    for (const auto& [t, name] : others) expectFinite(*t, name, false);
    expectFinite(q_, "q", false);
    expectFinite(k_, "k", false);
    expectFinite(v_, "v", false);
    if (bias()) expectFinite(*bias(), "bias", true);
    fail(ErrorCode::value, "q: its products with k, or sums of v, exceed what float32 can hold: scale the inputs down");
  }

 private:
  struct Offsets {
    const Tensor* tensor;
    const char* name;
    int64_t total;
  };

  bool packed() const { return options_.queryOffsets.has_value(); }
  int64_t batch() const { return packed() ? options_.queryOffsets->count() - 1 : q_.shape[0]; }
  int64_t queries() const { return packed() ? q_.shape[0] : q_.shape[2]; }
  int64_t keys() const { return packed() ? k_.shape[0] : k_.shape[2]; }
  int64_t dims() const { return q_.shape[q_.rank() - 1]; }
  std::vector<Offsets> offsets() const {
    std::vector<Offsets> out;
    if (options_.queryOffsets) out.push_back({&*options_.queryOffsets, "queryOffsets", queries()});
    if (packed() && !options_.keyOffsets) out.push_back({&*options_.queryOffsets, "keyOffsets", keys()});
    if (options_.keyOffsets) out.push_back({&*options_.keyOffsets, "keyOffsets", keys()});
    return out;
  }

  AttentionLayout layout(const Tensor& t) const {
    if (packed()) return {0, dims(), t.shape[1] * dims()};
    return {t.shape[1] * t.shape[2] * dims(), t.shape[2] * dims(), dims()};
  }

  void checkTensors() const {
    require(packed() || !options_.keyOffsets, ErrorCode::argument,
            "keyOffsets: expected together with queryOffsets but received alone");
    const char* shape = packed() ? "[total, heads, dims]" : "[batch, heads, length, dims]";
    const int rank = packed() ? 3 : 4;
    require(q_.dtype == DType::float32 || q_.dtype == DType::bfloat16, ErrorCode::dtype,
            "q: expected float32 or bfloat16 but received ", std::string(text(q_.dtype)));
    expectType(k_, "k", q_.dtype);
    expectType(v_, "v", q_.dtype);
    expectRank(q_, "q", rank, shape);
    expectRank(k_, "k", rank, shape);
    expectRank(v_, "v", rank, shape);
    expectDevice(k_, "k", q_);
    expectDevice(v_, "v", q_);
    require(dims() >= 1 && dims() <= 256, ErrorCode::shape,
            "q: expected 1 to 256 dimensions a head but received shape ", text(q_.shape));
    require(k_.shape[rank - 1] == dims(), ErrorCode::shape, "k: expected ", dims(),
            " dimensions a head, as many as q, but received shape ", text(k_.shape));
    require(v_.shape == k_.shape, ErrorCode::shape, "v: expected the shape of k, ", text(k_.shape), ", but received ",
            text(v_.shape));
    require(packed() || k_.shape[0] == q_.shape[0], ErrorCode::shape, "k: expected ", q_.shape[0],
            " sequences, as many as q, but received shape ", text(k_.shape));
    const int64_t kvHeads = k_.shape[1];
    require(heads() >= 1, ErrorCode::shape, "q: expected at least one head but received shape ", text(q_.shape));
    require(kvHeads >= 1 && heads() % kvHeads == 0, ErrorCode::shape, "k: expected a number of heads that divides the ",
            heads(), " heads of q but received ", kvHeads);
  }

  void checkMask() const {
    if (!options_.keyMask) return;
    const Tensor& mask = *options_.keyMask;
    require(mask.dtype == DType::boolean || mask.dtype == DType::uint8, ErrorCode::dtype,
            "keyMask: expected bool or uint8 but received ", std::string(text(mask.dtype)));
    const Shape shape = packed() ? Shape{keys()} : Shape{batch(), keys()};
    require(mask.shape == shape, ErrorCode::shape, "keyMask: expected shape ", text(shape),
            packed() ? " (the keys of all sequences)" : " (sequences, keys)", " but received ", text(mask.shape));
    expectDevice(mask, "keyMask", q_);
  }

  void checkBias() const {
    if (!bias()) return;
    require(bias()->dtype == DType::float32, ErrorCode::dtype, "bias: expected float32 but received ",
            std::string(text(bias()->dtype)));
    expectRank(*bias(), "bias", 4, "[1 or batch, 1 or heads, queries, keys]");
    const Shape& s = bias()->shape;
    const bool lengths = packed() || (s[2] == queries() && s[3] == keys());  // packed: see checkBiasLengths
    require((s[0] == 1 || s[0] == batch()) && (s[1] == 1 || s[1] == heads()) && lengths, ErrorCode::shape,
            "bias: expected shape [1 or ", batch(), ", 1 or ", heads(), ", ",
            packed() ? "longest queries, longest keys" : concat(queries(), ", ", keys()), "] but received ", text(s));
    expectDevice(*bias(), "bias", q_);
  }

  /// Of packed sequences, whose lengths are known once the offsets are.
  void checkBiasLengths() const {
    if (!bias() || !packed()) return;
    const auto longest = [](const Tensor& offsets) {
      const std::vector<int64_t> at = widened(offsets);
      int64_t most = 0;
      for (size_t i = 1; i < at.size(); ++i) most = std::max(most, at[i] - at[i - 1]);
      return most;
    };
    const int64_t n = longest(*options_.queryOffsets);
    const int64_t m = options_.keyOffsets ? longest(*options_.keyOffsets) : n;
    require(bias()->shape[2] >= n && bias()->shape[3] >= m, ErrorCode::shape, "bias: expected at least ", n,
            " queries and ", m, " keys, those of the longest sequences, but received shape ", text(bias()->shape));
  }

  void checkNumbers() const {
    for (const auto& [side, name] :
         {std::pair{options_.left, "window.left"}, std::pair{options_.right, "window.right"}}) {
      require(!side || *side >= 0, ErrorCode::range, name, ": expected 0 or more but received ", side.value_or(0));
    }
    const double scale = options_.scale.value_or(1);
    require(std::isfinite(static_cast<float>(scale)), ErrorCode::range,
            "scale: expected a finite float32 number but received ", scale);
    const double rate = options_.dropout;
    require(rate >= 0 && rate < 1, ErrorCode::range, "dropout: expected a probability in [0, 1) but received ", rate);
  }

  void checkOffsetsShape(const Tensor& t, const char* name) const {
    require(t.dtype == DType::int32 || t.dtype == DType::int64, ErrorCode::dtype, name,
            ": expected int32 or int64 but received ", std::string(text(t.dtype)));
    require(t.rank() == 1 && t.count() >= 1, ErrorCode::shape, name,
            ": expected one dimension, with one number more than there are sequences, but received shape ",
            text(t.shape));
    require(t.count() == batch() + 1, ErrorCode::shape, name, ": expected ", batch() + 1,
            " numbers, as many as queryOffsets has, but received ", t.count());
  }

  void checkOffsets(const Tensor& t, const char* name, int64_t total) const {
    const std::vector<int64_t> at = widened(t);
    require(at.front() == 0, ErrorCode::range, name, ": expected to start at 0 but received ", at.front());
    for (size_t i = 1; i < at.size(); ++i) {
      require(at[i] >= at[i - 1], ErrorCode::range, name, ": expected numbers that do not fall but entry ", i, " is ",
              at[i], " after ", at[i - 1]);
    }
    require(at.back() == total, ErrorCode::range, name, ": expected to end at ", total, ", the rows of ",
            name[0] == 'q' ? "q" : "k", ", but received ", at.back());
  }

  Tensor besideQ(const std::vector<int64_t>& numbers) const {
    Tensor t = Tensor::host<int64_t>({static_cast<int64_t>(numbers.size())});
    std::copy(numbers.begin(), numbers.end(), t.data<int64_t>());
    return copyTo(t, q_.device());
  }

  static std::vector<int64_t> widened(const Tensor& offsets) {
    const Tensor t = copyTo(offsets, Device{});
    if (t.dtype == DType::int64) return {t.data<int64_t>(), t.data<int64_t>() + t.count()};
    return {t.data<int32_t>(), t.data<int32_t>() + t.count()};
  }

  Tensor q_, k_, v_;
  AttentionOptions options_;
  Tensor queryOffsets_, keyOffsets_;
};

}  // namespace

namespace ops {

AttentionResult attention(Stream& stream, Tensor q, Tensor k, Tensor v, AttentionOptions options) {
  AttentionCall call(std::move(q), std::move(k), std::move(v), std::move(options));
  const Device device = call.q().device();
  AttentionResult result{empty(device, call.q().dtype, call.q().shape), empty<float>(device, call.logSumExpShape())};
  result.out.pending = result.logSumExp.pending = stream.enqueue([=](const Exec& exec) mutable {
    call.wait();
    const Flag notFinite(device);
    const AttentionArgs args{.problem = call.problem(),
                             .q = call.q().data<void>(),
                             .k = call.k().data<void>(),
                             .v = call.v().data<void>(),
                             .out = result.out.data<void>(),
                             .logSumExp = result.logSumExp.data<float>(),
                             .notFinite = notFinite.data()};
    run(device, &Backend::attention, "attention", exec, args);
    if (notFinite.raised()) call.failNotFinite();
  });
  return result;
}

AttentionGradients attentionBackward(Stream& stream, Tensor outGradient, Tensor q, Tensor k, Tensor v, Tensor out,
                                     Tensor logSumExp, AttentionOptions options) {
  AttentionCall call(std::move(q), std::move(k), std::move(v), std::move(options));
  expectType(outGradient, "outGradient", call.q().dtype);
  expectType(out, "out", call.q().dtype);
  require(logSumExp.dtype == DType::float32, ErrorCode::dtype, "logSumExp: expected float32 but received ",
          std::string(text(logSumExp.dtype)));
  expectSaved(outGradient, "outGradient", call.q().shape, "that of q", call.q());
  expectSaved(out, "out", call.q().shape, "that of q", call.q());
  expectSaved(logSumExp, "logSumExp", call.logSumExpShape(), "one number for each query and head", call.q());
  const Device device = call.q().device();
  const auto like = [&](const Tensor& t) { return empty(device, t.dtype, t.shape); };
  AttentionGradients result{like(call.q()), like(call.k()), like(call.v()), std::nullopt};
  if (call.bias()) result.bias = like(*call.bias());
  const auto pending = stream.enqueue([=](const Exec& exec) mutable {
    call.wait();
    for (const Tensor* t : {&outGradient, &out, &logSumExp}) {
      if (t->pending) t->pending->wait();
    }
    const Flag notFinite(device);
    const AttentionBackwardArgs args{.problem = call.problem(),
                                     .q = call.q().data<void>(),
                                     .k = call.k().data<void>(),
                                     .v = call.v().data<void>(),
                                     .out = out.data<void>(),
                                     .outGradient = outGradient.data<void>(),
                                     .logSumExp = logSumExp.data<float>(),
                                     .qGradient = result.q.data<void>(),
                                     .kGradient = result.k.data<void>(),
                                     .vGradient = result.v.data<void>(),
                                     .biasGradient = result.bias ? result.bias->data<float>() : nullptr,
                                     .notFinite = notFinite.data()};
    run(device, &Backend::attentionBackward, "attentionBackward", exec, args);
    if (!notFinite.raised()) return;
    expectFinite(logSumExp, "logSumExp", true);
    call.failNotFinite({{&outGradient, "outGradient"}, {&out, "out"}});
  });
  result.q.pending = result.k.pending = result.v.pending = pending;
  if (result.bias) result.bias->pending = pending;
  return result;
}

}  // namespace ops
}  // namespace topknot
