// The CUDA kernels of attention's backward pass under the SIMT emulator, and on the GPUs of this machine if there are
// any, against the CPU, for calls drawn at random.
#include <cstdlib>
#include <optional>

#include "test/attention_placed.h"
#include "test/simt/backend.h"

using namespace topknot;
using namespace topknot::test;

namespace {

/// A call whose numbers are as `dtype` stores them, and what the forward pass made of it.
struct Problem {
  Problem(const Call& from, DType dtype) : call(asStored(from, dtype)), dtype(dtype) {
    const AttentionResult forward = attend(stored(call.q), stored(call.k), stored(call.v), call.options);
    outGradient = normals(from.q.shape, 77);
    if (dtype == DType::bfloat16) outGradient = toFloats(toHalves(outGradient));
    out = widened(forward.out), logSumExp = forward.logSumExp;
  }
  Tensor stored(const Tensor& t) const { return dtype == DType::float32 ? t : toHalves(t); }
  Tensor widened(const Tensor& t) const { return dtype == DType::float32 ? t : toFloats(t); }

  Call call;
  DType dtype;
  Tensor outGradient, out, logSumExp;
};

struct Result {
  std::vector<float> q, k, v, bias;
  int32_t notFinite;
  bool operator==(const Result&) const = default;
};

Result backwardOn(const Backend& backend, const Exec& exec, const Problem& of) {
  const Call& c = of.call;
  const Layout at(c.q, c.k, c.options);
  Placed memory(backend, exec);
  const auto number = [&](const Tensor& t) { return placeNumbers(memory, t, of.dtype); };
  PlacedNumbers q(memory, c.q.count(), of.dtype), k(memory, c.k.count(), of.dtype), v(memory, c.v.count(), of.dtype);
  Result r{{}, {}, {}, std::vector<float>(c.options.bias ? c.options.bias->count() : 0, -7), 0};
  std::vector<int32_t> notFinite{0};
  const AttentionBackwardArgs args{placeProblem(memory, c, at, of.dtype),
                                   number(c.q),
                                   number(c.k),
                                   number(c.v),
                                   number(of.out),
                                   number(of.outGradient),
                                   memory.place(valuesOf<float>(of.logSumExp)),
                                   q.data,
                                   k.data,
                                   v.data,
                                   c.options.bias ? memory.place(r.bias) : nullptr,
                                   memory.place(notFinite)};
  check(backend.attentionBackward(exec, args));
  memory.fetch(notFinite, args.notFinite);
  if (c.options.bias) memory.fetch(r.bias, args.biasGradient);
  r.q = q.fetch(memory), r.k = k.fetch(memory), r.v = v.fetch(memory), r.notFinite = notFinite[0];
  return r;
}

Result onCpu(const Problem& of) {
  static Stream stream;
  const Call& c = of.call;
  const AttentionGradients g = ops::attentionBackward(stream, of.stored(of.outGradient), of.stored(c.q), of.stored(c.k),
                                                      of.stored(c.v), of.stored(of.out), of.logSumExp, c.options);
  g.q.pending->wait();
  const auto values = [&](const Tensor& t) { return valuesOf<float>(of.widened(t)); };
  return {values(g.q), values(g.k), values(g.v), g.bias ? valuesOf<float>(*g.bias) : std::vector<float>(), 0};
}

Result emulated(const Problem& of, size_t schedules, Path path = Path::sm80) {
  static const Backend backend = cuda::emulatedBackend();
  const Sm90a chosen(path == Path::sm90a);
  std::optional<Result> first;
  for (size_t s = 0; s < schedules; ++s) {
    simt::setSchedule(simt::schedules()[s]);
    const Result r = backwardOn(backend, {}, of);
    if (first) CHECK(*first == r);
    first = r;
  }
  simt::setSchedule({});
  CHECK(simt::liveAllocations() == 0);
  return *first;
}

bool near(const char* what, const std::vector<float>& got, const std::vector<float>& want, double tolerance) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::fabs(static_cast<double>(got[i]) - want[i]) <= tolerance * (1 + std::fabs(want[i]))) continue;
    std::printf("  %s, element %zu: %.9g, on the CPU %.9g\n", what, i, got[i], want[i]);
    return false;
  }
  return got.size() == want.size();
}

/// float32 sums in another order; bfloat16 rounds the results, and for tensor cores weights and their gradients as
/// well.
void checkCall(const Result& got, const Problem& of) {
  const Result want = onCpu(of);
  const double tolerance = of.dtype == DType::float32 ? 1e-5 : 0x1p-6;
  bool ok = near("q", got.q, want.q, tolerance) && near("k", got.k, want.k, tolerance);
  ok = near("v", got.v, want.v, tolerance) && near("bias", got.bias, want.bias, 1e-5) && ok;
  report(ok && got.notFinite == 0, of.call, of.dtype == DType::float32 ? "float32" : "bfloat16");
}

}  // namespace

TEST(randomCalls) {
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    for (uint64_t seed = 0; seed < 40; ++seed) {
      const Call c = draw(seed);
      if (c.q.count() * c.k.count() > 4'000'000) continue;
      const Problem problem(c, dtype);
      checkCall(emulated(problem, seed % 10 == 0 ? 5 : 1), problem);
    }
  }
}

TEST(everyHeadSizeOfTheTensorCores) {
  for (const int64_t dims : {8, 40, 64, 96, 128}) {
    Call c = plainCall(1, 2, 140, dims);  // three tiles of each side, five steps along the other
    c.k = normals({1, 1, 140, dims}, 5), c.v = normals({1, 1, 140, dims}, 6);
    c.options.causal = dims % 16 == 0;
    if (dims == 40) c.options.left = 30, c.options.bias = normals({1, 1, 140, 140}, 7);
    if (dims == 64) c.options.dropout = 0.25, c.options.seed = 3;
    const Problem problem(c, DType::bfloat16);
    checkCall(emulated(problem, dims == 40 ? 5 : 1), problem);
  }
}

/// Calls that suit the kernels for 9.0a, drawn at random.
TEST(randomCallsOnSm90a) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    Call c = draw(seed, {8, 32, 40, 64, 96, 128});
    if (c.options.queryOffsets) continue;
    c.options.dropout = 0, c.options.keyMask.reset(), c.options.bias.reset();
    const Problem problem(c, DType::bfloat16);
    checkCall(emulated(problem, seed % 10 == 0 ? 5 : 1, Path::sm90a), problem);
  }
}

/// So many rows on one side that every stage of the ring is used again, for some warpgroups of a block and not for
/// others.
TEST(longSequencesOnSm90a) {
  for (const int64_t dims : {64, 128}) {
    for (const bool manyKeys : {false, true}) {
      const int64_t queries = manyKeys ? 150 : 600, keys = manyKeys ? 600 : 150;
      Call c;
      c.q = normals({1, 2, queries, dims}, 1), c.k = normals({1, 1, keys, dims}, 2);
      c.v = normals({1, 1, keys, dims}, 3);
      if (dims == 64) c.options.causal = true;
      if (dims == 128) c.options.left = 70, c.options.right = 300;
      c.text = concat("long, ", queries, " queries, heads of ", dims);
      const Problem problem(c, DType::bfloat16);
      checkCall(emulated(problem, manyKeys ? 1 : 5, Path::sm90a), problem);
    }
  }
}

/// Each path sums in an order of its own: where both give the same bits, both were the same kernels.
TEST(whatTheKernelsForSm90aDoNotTake) {
  for (const char* what : {"", "dropout", "mask", "bias"}) {
    Call c = plainCall(1, 1, 140, 64);
    c.text = what;
    if (c.text == "dropout") c.options.dropout = 0.5;
    if (c.text == "mask") c.options.keyMask = mask(1, 140, 1);
    if (c.text == "bias") c.options.bias = normals({1, 1, 140, 140}, 7);
    const Problem problem(c, DType::bfloat16);
    const Result on90 = emulated(problem, 1, Path::sm90a);
    checkCall(on90, problem);
    CHECK((on90 == emulated(problem, 1)) == !c.text.empty());
  }
}

TEST(largeNumbersAreReported) {
  for (const Path path : {Path::sm80, Path::sm90a}) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
      Problem problem(plainCall(1, 1, 20, 16), dtype);
      problem.outGradient.data<float>()[5] = std::numeric_limits<float>::infinity();
      CHECK(emulated(problem, 1, path).notFinite == 1);
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
        const Problem problem(draw(seed), dtype);
        checkCall(backwardOn(backendOf(all[i].device), exec, problem), problem);
      }
      const Problem problem(plainCall(2, 4, 1000, 64), dtype);
      checkCall(backwardOn(backendOf(all[i].device), exec, problem), problem);
    }
  }
}

TEST_MAIN()
