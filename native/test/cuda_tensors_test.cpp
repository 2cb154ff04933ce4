// Casts and copies of matrices: every instruction set of the CPU against the formula, and the CUDA kernels under the
// SIMT emulator against the CPU.
#include <cmath>
#include <limits>

#include "core/convert.h"
#include "core/random.h"
#include "test/emulated.h"
#include "test/placed.h"

using namespace topknot;
using topknot::test::emulate;
using topknot::test::Placed;

namespace {

struct Found {
  std::vector<uint8_t> bytes;
  int64_t first;
  bool operator==(const Found&) const = default;
};

/// Numbers of each kind: small, halfway between two others, at the ends of every integer type and just beyond.
std::vector<double> numbers(bool wild) {
  std::vector<double> out{0, -0.0, 1, -1, 0.5, -0.99, 2.5, 100.75, -128, 127, 64, 5e-8, 3.0004883};
  if (wild) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    for (const double x : {128.0,
                           255.0,
                           255.99,
                           256.0,
                           -128.99,
                           -129.0,
                           2147483647.0,
                           2147483648.0,
                           -2147483648.5,
                           -2147483649.0,
                           9.2233720368547748e18,
                           9.2233720368547758e18,
                           -9.2233720368547758e18,
                           65519.0,
                           65520.0,
                           1e-6,
                           1e39,
                           1e300,
                           infinity,
                           -infinity,
                           std::nan("")}) {
      out.push_back(x);
    }
  }
  Random random(3, wild);
  while (out.size() < 700) out.push_back(random.normal() * 20);
  return out;
}

/// Those that `From` holds, as its bytes.
template <typename From>
std::vector<uint8_t> bytesOf(bool wild) {
  std::vector<uint8_t> out;
  for (const double x : numbers(wild)) {
    if (!holds<From>(x)) continue;
    const From number = convert<From>(x);
    out.resize(out.size() + sizeof number);
    std::memcpy(out.data() + out.size() - sizeof number, &number, sizeof number);
  }
  return out;
}

Found castBy(const Backend& backend, const Exec& exec, const std::vector<uint8_t>& x, DType from, DType to) {
  Placed memory(backend, exec);
  const int64_t count = static_cast<int64_t>(x.size() / sizeOf(from));
  Found out{std::vector<uint8_t>(static_cast<size_t>(count) * sizeOf(to)), -7};
  std::vector<int64_t> first{-7};
  uint8_t* data = memory.place(out.bytes);
  int64_t* at = memory.place(first);
  check(backend.cast(exec, CastArgs{memory.place(x), from, data, to, count, at}));
  memory.fetch(out.bytes, data);
  memory.fetch(first, at);
  out.first = first[0];
  if (out.first < count) out.bytes.clear();  // what is written then is nobody's
  return out;
}

template <typename From, typename To>
Found reference(const std::vector<uint8_t>& bytes) {
  const size_t count = bytes.size() / sizeof(From);
  Found out{std::vector<uint8_t>(count * sizeof(To)), static_cast<int64_t>(count)};
  for (size_t i = count; i-- > 0;) {
    From x{};
    std::memcpy(&x, bytes.data() + i * sizeof x, sizeof x);
    const To number = holds<To>(x) ? convert<To>(x) : To{};
    if (!holds<To>(x)) out.first = static_cast<int64_t>(i);
    std::memcpy(out.bytes.data() + i * sizeof number, &number, sizeof number);
  }
  if (out.first < static_cast<int64_t>(count)) out.bytes.clear();
  return out;
}

constexpr DType all[] = {DType::float32, DType::float64, DType::float16, DType::bfloat16, DType::int8,
                         DType::uint8,   DType::int32,   DType::int64,   DType::boolean};

std::vector<float> copied(const Backend& backend, const Exec& exec, const std::vector<float>& from, CopyMatrixArgs a) {
  Placed memory(backend, exec);
  std::vector<float> to(static_cast<size_t>(a.rows * a.toStride + 1), -5);
  float* data = memory.place(to);
  a.from = memory.place(from);
  a.to = data;
  check(backend.copyMatrix(exec, a));
  memory.fetch(to, data);
  return to;
}

}  // namespace

TEST(casts) {
  int refused = 0;
  for (const bool wild : {false, true}) {
    for (const DType from : all) {
      for (const DType to : all) {
        if (from == to) continue;  // copied
        std::vector<uint8_t> bytes;
        Found expected;
        dispatch(from, [&]<typename From>(From) {
          bytes = bytesOf<From>(wild);
          dispatch(to, [&]<typename To>(To) { expected = reference<From, To>(bytes); });
        });
        for (const Backend* cpu : cpuBackends()) CHECK(castBy(*cpu, {}, bytes, from, to) == expected);
        if (expected.bytes.empty()) {
          CHECK(mayOverflow(from, to));
          ++refused;
        }
        CHECK(emulate([&](const Backend& b, const Exec& e) { return castBy(b, e, bytes, from, to); }) == expected);
      }
    }
  }
  CHECK(refused > 20);
  const Found none = emulate([](const Backend& b, const Exec& e) { return castBy(b, e, {}, DType::int8, all[0]); });
  CHECK(none.first == 0);
}

TEST(copiesMatrices) {
  Random random(9, 0);
  std::vector<float> from(90 * 80);
  for (float& x : from) x = static_cast<float>(random.normal());
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {1, 70}, {70, 1}, {32, 32}, {33, 65}, {80, 7}}) {
    for (const bool transposed : {false, true}) {
      for (const int64_t fromStride : {int64_t{80}, (transposed ? rows : cols), int64_t{0}}) {
        for (const int64_t toStride : {cols, cols + 3}) {
          const CopyMatrixArgs args{rows, cols, nullptr, fromStride, nullptr, toStride, transposed, -0.5f};
          std::vector<float> expected(static_cast<size_t>(rows * toStride + 1), -5);
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t c = 0; c < cols; ++c) {
              const int64_t at = transposed ? c * fromStride + r : r * fromStride + c;
              expected[static_cast<size_t>(r * toStride + c)] = -0.5f * from[static_cast<size_t>(at)];
            }
          }
          for (const Backend* cpu : cpuBackends()) CHECK(copied(*cpu, {}, from, args) == expected);
          CHECK(emulate([&](const Backend& b, const Exec& e) { return copied(b, e, from, args); }) == expected);
        }
      }
    }
  }
}

TEST_MAIN()
