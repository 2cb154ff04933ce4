// The CUDA attention kernels under the SIMT emulator, and on the GPUs of this machine if there are any, against the
// formula in float64, for calls drawn at random.
#include <cstdlib>
#include <optional>

#include "test/attention_placed.h"
#include "test/simt/backend.h"

using namespace topknot;
using namespace topknot::test;

namespace {

struct Result {
  std::vector<float> out, logSumExp;
  int32_t notFinite;
  bool operator==(const Result&) const = default;
};

Result attendOn(const Backend& backend, const Exec& exec, const Call& c, DType dtype) {
  const Layout at(c.q, c.k, c.options);
  Placed memory(backend, exec);
  const auto number = [&](const Tensor& t) { return placeNumbers(memory, t, dtype); };
  Result r{{}, std::vector<float>(c.q.count() / at.dims, -7), 0};
  PlacedNumbers out(memory, c.q.count(), dtype);
  std::vector<int32_t> notFinite{0};
  const AttentionArgs args{placeProblem(memory, c, at, dtype),
                           number(c.q),
                           number(c.k),
                           number(c.v),
                           out.data,
                           memory.place(r.logSumExp),
                           memory.place(notFinite)};
  check(backend.attention(exec, args));
  memory.fetch(r.logSumExp, args.logSumExp);
  memory.fetch(notFinite, args.notFinite);
  r.out = out.fetch(memory), r.notFinite = notFinite[0];
  return r;
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

Result emulate(const Call& c, DType dtype, size_t schedules, Path path = Path::sm80) {
  static const Backend backend = cuda::emulatedBackend();
  const Sm90a chosen(path == Path::sm90a);
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
  for (const Path path : {Path::sm80, Path::sm90a}) {
    for (const int64_t dims : {8, 16, 32, 40, 64, 72, 96, 128}) {
      Call c = plainCall(1, 1, 210, dims);  // four blocks of 64 keys: both stages are used again
      c.options.causal = dims % 16 == 0;
      c = asStored(c, DType::bfloat16);
      checkCall(emulate(c, DType::bfloat16, 5, path), c, DType::bfloat16);
    }
  }
}

/// Calls that suit the kernels for 9.0a, drawn at random.
TEST(randomCallsOnSm90a) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Call c = asStored(draw(seed, {8, 32, 40, 64, 96, 128}), DType::bfloat16);
    if (c.options.queryOffsets) continue;
    c.options.dropout = 0;
    checkCall(emulate(c, DType::bfloat16, seed % 10 == 0 ? 5 : 1, Path::sm90a), c, DType::bfloat16);
  }
}

/// So many keys that every tile of the ring is used again, for some warpgroups of a block and not for others.
TEST(longSequencesOnSm90a) {
  for (const int64_t dims : {64, 128}) {
    for (int kind = 0; kind < 4; ++kind) {
      Call c;
      c.q = normals({1, 2, 200, dims}, 1), c.k = normals({1, 1, 700, dims}, 2), c.v = normals({1, 1, 700, dims}, 3);
      if (kind == 1) c.options.causal = true;
      if (kind == 2) c.options.left = 130, c.options.right = 20;
      if (kind == 3) c.options.keyMask = mask(1, 700, 1), c.options.bias = normals({1, 2, 200, 700}, 5);
      c.text = concat("long, kind ", kind, ", heads of ", dims);
      c = asStored(c, DType::bfloat16);
      checkCall(emulate(c, DType::bfloat16, kind == 2 ? 5 : 1, Path::sm90a), c, DType::bfloat16);
    }
  }
}

/// Each path sums in an order of its own: where both give the same bits, both were the same kernel.
TEST(whatTheKernelsForSm90aDoNotTake) {
  for (const char* what : {"", "packed", "dropout", "negative scale", "no keys", "float32"}) {
    Call c = plainCall(1, 2, 150, 64);
    const bool none = !*what, is32 = std::string(what) == "float32";
    c.text = what;
    if (c.text == "dropout") c.options.dropout = 0.5;
    if (c.text == "negative scale") c.options.scale = -0.2;
    if (c.text == "no keys") c.k = c.v = normals({1, 2, 0, 64}, 1);
    if (c.text == "packed") {
      c.q = normals({150, 2, 64}, 1), c.k = normals({150, 2, 64}, 2), c.v = normals({150, 2, 64}, 3);
      c.options.queryOffsets = vectorOf(std::vector<int32_t>{0, 70, 150});
    }
    const DType dtype = is32 ? DType::float32 : DType::bfloat16;
    c = asStored(c, dtype);
    const Result on80 = emulate(c, dtype, 1), on90 = emulate(c, dtype, 1, Path::sm90a);
    checkCall(on90, c, dtype);
    CHECK((on80 == on90) == !none);
  }
}

TEST(sm90aIsRefusedOnOtherGpus) {
  const Sm90a chosen;
  cuda::Queue::emulatedCapability = 80;
  CHECK_THROWS(
      attendOn(cuda::emulatedBackend(), {}, asStored(plainCall(1, 1, 70, 64), DType::bfloat16), DType::bfloat16),
      device);
  cuda::Queue::emulatedCapability = 90;
}

TEST(largeNumbersAreReported) {
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    for (const Path path : {Path::sm80, Path::sm90a}) {
      Call c = plainCall(1, 1, 20, 16);
      c.q.data<float>()[5] = c.k.data<float>()[5] = 3e38f;
      CHECK(emulate(c, dtype, 1, path).notFinite == 1);
    }
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
