// The CUDA attention kernels under the SIMT emulator, and on the GPUs of this machine if there are any, against the
// formula in float64, for calls drawn at random.
#include <cstdlib>
#include <optional>

#include "test/attention_reference.h"
#include "test/placed.h"
#include "test/simt/backend.h"

using namespace topknot;
using namespace topknot::test;

namespace {

template <typename T>
std::vector<T> valuesOf(const Tensor& t) {
  return std::vector<T>(t.data<T>(), t.data<T>() + t.count());
}

struct Result {
  std::vector<float> out, logSumExp;
  int32_t notFinite;
  bool operator==(const Result&) const = default;
};

Result attendOn(const Backend& backend, const Exec& exec, const Call& c, DType dtype) {
  const Layout at(c.q, c.k, c.options);
  const AttentionOptions& o = c.options;
  Placed memory(backend, exec);
  const auto number = [&](const Tensor& t) -> const void* {
    if (dtype == DType::float32) return memory.place(valuesOf<float>(t));
    return memory.place(valuesOf<BFloat16>(toHalves(t)));
  };
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

  Result r{{}, std::vector<float>(c.q.count() / at.dims, -7), 0};
  std::vector<float> wide(c.q.count(), -7);
  std::vector<BFloat16> half(c.q.count());
  std::vector<int32_t> notFinite{0};
  void* out = dtype == DType::float32 ? static_cast<void*>(memory.place(wide)) : memory.place(half);
  const AttentionArgs args{
      p, number(c.q), number(c.k), number(c.v), out, memory.place(r.logSumExp), memory.place(notFinite)};
  check(backend.attention(exec, args));
  if (dtype == DType::float32) {
    memory.fetch(wide, static_cast<float*>(out));
  } else {
    memory.fetch(half, static_cast<BFloat16*>(out));
    std::transform(half.begin(), half.end(), wide.begin(), [](BFloat16 x) { return toFloat(x); });
  }
  memory.fetch(r.logSumExp, args.logSumExp);
  memory.fetch(notFinite, args.notFinite);
  r.out = wide, r.notFinite = notFinite[0];
  return r;
}

Call asStored(Call c, DType dtype) {
  if (dtype == DType::bfloat16)
    c.q = toFloats(toHalves(c.q)), c.k = toFloats(toHalves(c.k)), c.v = toFloats(toHalves(c.v));
  return c;
}

bool near(const std::vector<float>& got, const std::vector<double>& expected, double tolerance) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (static_cast<double>(got[i]) == expected[i]) continue;
    if (!(std::fabs(got[i] - expected[i]) <= tolerance * (1 + std::fabs(expected[i])))) {
      std::printf("  element %ld: %.9g, expected %.9g\n", static_cast<long>(i), got[i], expected[i]);
      return false;
    }
  }
  return true;
}

/// bfloat16 keeps 8 bits of the weights and of the result.
void checkCall(const Result& got, const Call& c, DType dtype) {
  const Reference r = reference(c.q, c.k, c.v, c.options);
  const double rounding = dtype == DType::float32 ? 1e-5 : 0x1p-7;
  bool ok = near(got.logSumExp, r.logSumExp, 1e-5) && got.notFinite == 0;
  ok = near(got.out, r.out, rounding * (dtype == DType::float32 ? 1 : 1.5)) && ok;
  report(ok, c, dtype == DType::float32 ? "float32" : "bfloat16");
}

Result emulate(const Call& c, DType dtype, size_t schedules) {
  static const Backend backend = cuda::emulatedBackend();
  std::optional<Result> first;
  for (size_t s = 0; s < schedules; ++s) {
    simt::setSchedule(simt::schedules()[s]);
    const Result r = attendOn(backend, {}, c, dtype);
    if (first) CHECK(*first == r);
    first = r;
  }
  simt::setSchedule({});
  CHECK(simt::liveAllocations() == 0);
  return *first;
}

Call plainCall(int64_t batch, int64_t heads, int64_t length, int64_t dims) {
  Call c;
  c.q = normals({batch, heads, length, dims}, 1), c.k = normals({batch, heads, length, dims}, 2);
  c.v = normals({batch, heads, length, dims}, 3);
  c.text = "plain";
  return c;
}

}  // namespace

TEST(randomCalls) {
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
      const Call c = asStored(draw(seed), dtype);
      if (c.q.count() * c.k.count() > 60'000'000) continue;
      checkCall(emulate(c, dtype, seed % 10 == 0 ? 3 : 1), c, dtype);
    }
  }
}

TEST(everyHeadSizeOfTheTensorCores) {
  for (const int64_t dims : {8, 16, 32, 40, 64, 72, 96, 128}) {
    Call c = plainCall(1, 1, 210, dims);  // four blocks of keys: both stages are used again
    c.options.causal = dims % 16 == 0;
    c = asStored(c, DType::bfloat16);
    checkCall(emulate(c, DType::bfloat16, 5), c, DType::bfloat16);
  }
}

TEST(largeNumbersAreReported) {
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    Call c = plainCall(1, 1, 20, 16);
    c.q.data<float>()[5] = c.k.data<float>()[5] = 3e38f;
    CHECK(emulate(c, dtype, 1).notFinite == 1);
  }
}

TEST(onTheGpusOfThisMachine) {
  const std::vector<DeviceInfo> all = devices();
  if (std::getenv("TOPKNOT_CUDA_BUILT")) CHECK(cudaProblem().find("plugin is not") == std::string::npos);
  for (size_t i = 1; i < all.size(); ++i) {
    const Exec exec{.device = all[i].device.index};
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
      for (uint64_t seed = 0; seed < 200; ++seed) {
        const Call c = asStored(draw(seed), dtype);
        checkCall(attendOn(backendOf(all[i].device), exec, c, dtype), c, dtype);
      }
      const Call c = asStored(plainCall(2, 4, 1000, 64), dtype);
      checkCall(attendOn(backendOf(all[i].device), exec, c, dtype), c, dtype);
    }
  }
}

TEST_MAIN()
