// Dtypes, random numbers, shapes, streams, jobs and sparse matrices of core/ and ops/.
#include <bit>
#include <cmath>
#include <cstring>
#include <thread>

#include "core/host_memory.h"
#include "core/job_threads.h"
#include "core/random.h"
#include "ops/ops.h"
#include "test/check.h"

using namespace topknot;

TEST(halfMatchesTheCompilersOwn) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = Float16{static_cast<uint16_t>(bits)};
    const float want = static_cast<float>(std::bit_cast<_Float16>(half.bits));
    const float got = toFloat(half);
    CHECK(std::isnan(want) ? std::isnan(got) : std::bit_cast<uint32_t>(want) == std::bit_cast<uint32_t>(got));
    if (!std::isnan(got)) CHECK(toFloat16(got).bits == half.bits);
  }
  for (uint64_t i = 0; i < 200000; ++i) {  // every kind of float, ties and subnormals among them
    const uint32_t bits = philox(7, i, 0)[0] & (i % 3 ? 0xffffffffu : 0xfffff000u);
    const float x = std::bit_cast<float>(bits);
    if (std::isnan(x)) continue;
    CHECK(toFloat16(x).bits == std::bit_cast<uint16_t>(static_cast<_Float16>(x)));
  }
}

TEST(bfloat16RoundsToNearestEven) {
  CHECK(toBFloat16(1.0f).bits == 0x3f80);
  CHECK(toBFloat16(std::bit_cast<float>(0x3f808000u)).bits == 0x3f80);  // tie, to even
  CHECK(toBFloat16(std::bit_cast<float>(0x3f818000u)).bits == 0x3f82);  // tie, to even
  CHECK(toBFloat16(std::bit_cast<float>(0x3f808001u)).bits == 0x3f81);
  CHECK(std::isinf(toFloat(toBFloat16(3.4e38f))));
  CHECK(std::isnan(toFloat(toBFloat16(std::nanf("")))));
}

TEST(philoxMatchesItsPublishedVectors) {
  // Random123's known answers for philox4x32-10: counter and key of zeros, of ones, of digits of pi.
  CHECK((philox(0, 0, 0) == std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  CHECK((philox(~0ull, ~0ull, ~0ull) == std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  CHECK((philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88) ==
         std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

#if !defined(__SANITIZE_ADDRESS__)  // there nothing is kept
TEST(freedMemoryIsKeptForTheNext) {
  trimHostMemory();
  CHECK(keptHostBytes() == 0);
  constexpr size_t mega = 1 << 20;
  const auto addressOf = [](size_t bytes) { return hostMemory(bytes).get(); };  // and lets go of it
  const void* first = addressOf(mega);
  const size_t kept = keptHostBytes();
  CHECK(kept > mega && kept < mega + mega / 4);
  CHECK(addressOf(mega + 1000) == first);  // about as large
  CHECK(addressOf(2 * mega) != first && addressOf(mega / 2) != first);
  CHECK(addressOf(mega) == first);
  for (size_t i = 1; i < 40; ++i) addressOf(i * mega);  // the oldest go
  CHECK(keptHostBytes() <= 64 * mega && keptHostBytes() > 30 * mega);
  const size_t before = keptHostBytes();
  addressOf(40 * mega), addressOf(1000);  // too large, and too small to be worth it
  CHECK(keptHostBytes() == before);
  {
    const auto a = hostMemory(mega), b = hostMemory(mega);
    CHECK(a != b);
  }
  trimHostMemory();
  CHECK(keptHostBytes() == 0);
}
#endif

TEST(hostMemoryIsAligned) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{100}, size_t{1} << 16, size_t{5} << 20, size_t{70} << 20}) {
    const auto memory = hostMemory(bytes);
    CHECK(reinterpret_cast<uintptr_t>(memory.get()) % (bytes >= (4 << 20) ? 2 << 20 : 64) == 0);
    std::memset(memory.get(), 1, bytes + 64);  // with its spare vector, which the address sanitizer knows of
  }
  bool failed = false;
  try {
    hostMemory(SIZE_MAX - 10);
  } catch (const Error& e) {
    failed = e.code() == ErrorCode::memory;
  }
  CHECK(failed);
}

TEST(whatIsToFollowWorkFollowsIt) {
  Completion completion;
  int calls = 0;
  CHECK(!completion.done() && completion.whenDone([&] { ++calls; }) && calls == 0);
  completion.finish(std::make_exception_ptr(1));
  CHECK(completion.done() && calls == 1 && !completion.whenDone([&] { ++calls; }) && calls == 1);
}

TEST(randomNumbersHaveTheirMoments) {
  double sum = 0, square = 0, uniform = 0;
  constexpr int n = 200000;
  int counts[7] = {};
  for (int row = 0; row < n; ++row) {
    Random r(3, row);
    const double x = r.normal();
    sum += x;
    square += x * x;
    uniform += r.uniform();
    ++counts[r.below(7)];
  }
  CHECK(std::abs(sum / n) < 0.01);
  CHECK(std::abs(square / n - 1) < 0.02);
  CHECK(std::abs(uniform / n - 0.5) < 0.005);
  for (int c : counts) CHECK(std::abs(c - n / 7.0) < 5 * std::sqrt(n / 7.0));
}

TEST(shapesRefuseWhatCannotBe) {
  CHECK((Shape{2, 3}.count() == 6));
  CHECK(Shape{}.count() == 1);
  CHECK_THROWS((Shape{-1}), shape);
  CHECK_THROWS((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}), shape);
  CHECK_THROWS((Shape{int64_t{1} << 40, int64_t{1} << 40}), shape);
}

TEST(buffersAreAlignedAndCounted) {
  const MemoryUse before = memoryUse();
  {
    Tensor t = Tensor::host<float>({1000}, true);
    CHECK(reinterpret_cast<uintptr_t>(t.buffer->data()) % 64 == 0);
    CHECK(memoryUse().hostBytes == before.hostBytes + 4000);
    for (float x : t.span<float>()) CHECK(x == 0);
  }
  CHECK(memoryUse().hostBytes == before.hostBytes && memoryUse().hostBuffers == before.hostBuffers);
}

TEST(streamRunsInOrderAndPoisons) {
  Stream stream;
  Tensor a = ops::tensorFull(DType::float32, {100000}, 1000, {});
  Tensor poisoned = ops::cast(stream, a, DType::int8);  // 1000 does not fit
  Tensor child = ops::cast(stream, poisoned, DType::float32);
  Tensor fine = ops::cast(stream, a, DType::int32);
  CHECK_THROWS(child.pending->wait(), range);
  fine.pending->wait();
  CHECK(fine.data<int32_t>()[99999] == 1000);
}

TEST(jobsRunAndQueriesAreNotHeldUp) {
  std::atomic<bool> release{false};
  std::atomic<int> started{0}, queries{0};
  for (int i = 0; i < 20; ++i) {
    startJob(0, [&] {
      ++started;
      while (!release) std::this_thread::yield();
      --started;
    });
  }
  for (int i = 0; i < 10; ++i) startJob(1, [&] { ++queries; });
  while (queries < 10) std::this_thread::yield();
  release = true;
  while (started > 0) std::this_thread::yield();
}

namespace {

Tensor ints(std::initializer_list<int32_t> v) {
  Tensor t = Tensor::host<int32_t>({static_cast<int64_t>(v.size())});
  std::copy(v.begin(), v.end(), t.data<int32_t>());
  return t;
}
Tensor floats(std::initializer_list<float> v) {
  Tensor t = Tensor::host<float>({static_cast<int64_t>(v.size())});
  std::copy(v.begin(), v.end(), t.data<float>());
  return t;
}

}  // namespace

TEST(csrFromTriplets) {
  Job job;
  const Tensor rows = ints({1, 0, 1, 1}), cols = ints({2, 1, 0, 2}), values = floats({1, 2, 3, 4});
  const auto build = [&](Duplicates d) { return ops::csrFromCoo(job, rows, cols, values, 3, 3, d); };
  const Csr m = build(Duplicates::sum);
  ops::csrValidate(job, m);
  CHECK(m.nnz() == 3 && m.values.data<float>()[2] == 5);
  CHECK(build(Duplicates::last).values.data<float>()[2] == 4);
  CHECK(build(Duplicates::max).values.data<float>()[2] == 4);
  CHECK_THROWS(build(Duplicates::refuse), value);
  CHECK_THROWS(ops::csrFromCoo(job, rows, cols, values, 1, 3, Duplicates::sum), range);
  CHECK_THROWS(ops::csrFromCoo(job, rows, cols, floats({1, 2, 3}), 3, 3, Duplicates::sum), shape);
  CHECK_THROWS(ops::csrFromCoo(job, rows, cols, floats({1, 2, NAN, 4}), 3, 3, Duplicates::sum), value);
  const Csr t = ops::csrTranspose(job, m);
  ops::csrValidate(job, t);
  CHECK(t.rows() == 3 && t.cols == 3 && t.indices.data<int32_t>()[0] == 1);
}

TEST(csrValidateFindsEveryFault) {
  Job job;
  const auto pointers = [](std::initializer_list<int64_t> v) {
    Tensor t = Tensor::host<int64_t>({static_cast<int64_t>(v.size())});
    std::copy(v.begin(), v.end(), t.data<int64_t>());
    return t;
  };
  const auto check = [&](Tensor p, Tensor i, Tensor v) { ops::csrValidate(job, Csr{p, i, v, 3}); };
  check(pointers({0, 2, 3}), ints({0, 2, 1}), floats({1, 2, 3}));
  CHECK_THROWS(check(pointers({1, 2, 3}), ints({0, 2, 1}), floats({1, 2, 3})), value);
  CHECK_THROWS(check(pointers({0, 4, 3}), ints({0, 2, 1}), floats({1, 2, 3})), value);
  CHECK_THROWS(check(pointers({0, 2, 3}), ints({2, 0, 1}), floats({1, 2, 3})), value);
  CHECK_THROWS(check(pointers({0, 2, 3}), ints({0, 3, 1}), floats({1, 2, 3})), range);
  CHECK_THROWS(check(pointers({0, 2, 3}), ints({0, 2, 1}), floats({1, INFINITY, 3})), value);
  CHECK_THROWS(check(pointers({0, 2, 5}), ints({0, 2, 1}), floats({1, 2, 3})), shape);
  CHECK_THROWS(check(pointers({}), ints({}), floats({})), shape);
}

TEST_MAIN()
