// Calls of attention as the slots of a backend take them.
#pragma once
#include "test/attention_reference.h"
#include "test/placed.h"
#include "test/sm90a.h"

namespace topknot::test {

/// Which kernels take the bfloat16 calls that suit them.
enum class Path { sm80, sm90a };

template <typename T>
std::vector<T> valuesOf(const Tensor& t) {
  return std::vector<T>(t.data<T>(), t.data<T>() + t.count());
}

/// The numbers of a float32 tensor as `dtype`.
inline const void* placeNumbers(Placed& memory, const Tensor& t, DType dtype) {
  if (dtype == DType::float32) return memory.place(valuesOf<float>(t));
  return memory.place(valuesOf<BFloat16>(toHalves(t)));
}

inline AttentionProblem placeProblem(Placed& memory, const Call& c, const Layout& at, DType dtype) {
  const AttentionOptions& o = c.options;
  const auto layout = [&](const Tensor& t) {
    return at.packed ? AttentionLayout{0, at.dims, t.shape[1] * at.dims}
                     : AttentionLayout{t.shape[1] * t.shape[2] * at.dims, t.shape[2] * at.dims, at.dims};
  };
  AttentionProblem p{};
  p.dtype = dtype;
  p.batch = at.batch(), p.heads = at.heads, p.kvHeads = at.kvHeads, p.dims = at.dims;
  p.queries = at.packed ? c.q.shape[0] : c.q.shape[2], p.keys = at.packed ? c.k.shape[0] : c.k.shape[2];
  p.queryLayout = layout(c.q), p.keyLayout = layout(c.k);
  if (at.packed) p.queryOffsets = memory.place(at.queryAt), p.keyOffsets = memory.place(at.keyAt);
  constexpr int64_t unlimited = int64_t{1} << 40;
  p.left = o.left.value_or(unlimited);
  p.right = o.causal ? 0 : o.right.value_or(unlimited);
  p.scale = static_cast<float>(o.scale.value_or(1 / std::sqrt(static_cast<double>(at.dims))));
  if (o.keyMask) p.keyMask = memory.place(valuesOf<uint8_t>(*o.keyMask));
  if (o.bias) {
    const Shape& s = o.bias->shape;
    p.bias = {memory.place(valuesOf<float>(*o.bias)), s[0], s[1], s[2], s[3]};
  }
  p.dropout = static_cast<float>(o.dropout), p.seed = static_cast<uint64_t>(o.seed);
  return p;
}

/// q, k and v rounded to `dtype`.
inline Call asStored(Call c, DType dtype) {
  if (dtype == DType::bfloat16)
    c.q = toFloats(toHalves(c.q)), c.k = toFloats(toHalves(c.k)), c.v = toFloats(toHalves(c.v));
  return c;
}

inline Call plainCall(int64_t batch, int64_t heads, int64_t length, int64_t dims) {
  Call c;
  c.q = normals({batch, heads, length, dims}, 1), c.k = normals({batch, heads, length, dims}, 2);
  c.v = normals({batch, heads, length, dims}, 3);
  c.text = "plain";
  return c;
}

/// Memory for results in `dtype`, fetched as float32.
class PlacedNumbers {
 public:
  PlacedNumbers(Placed& memory, int64_t count, DType dtype)
      : isWide_(dtype == DType::float32), wide_(count, -7), half_(count) {
    data = isWide_ ? static_cast<void*>(memory.place(wide_)) : memory.place(half_);
  }
  const std::vector<float>& fetch(Placed& memory) {
    if (isWide_) {
      memory.fetch(wide_, static_cast<float*>(data));
    } else {
      memory.fetch(half_, static_cast<BFloat16*>(data));
      std::transform(half_.begin(), half_.end(), wide_.begin(), [](BFloat16 x) { return toFloat(x); });
    }
    return wide_;
  }
  void* data;

 private:
  bool isWide_;
  std::vector<float> wide_;
  std::vector<BFloat16> half_;
};

}  // namespace topknot::test
