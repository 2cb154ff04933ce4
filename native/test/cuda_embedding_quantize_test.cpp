// The CUDA kernel that stores rows in 8 or 4 bits, under the SIMT emulator: the bytes of the CPU.
#include <cmath>
#include <limits>
#include <string>

#include "backend/registry.h"
#include "core/random.h"
#include "test/check.h"
#include "test/placed.h"
#include "test/simt/backend.h"

using namespace topknot;
using topknot::test::Placed;

namespace {

struct Quantized {
  std::vector<uint8_t> bytes;
  std::vector<float> scale, bias;
  bool operator==(const Quantized&) const = default;
};

Quantized quantize(const Backend& backend, const std::vector<float>& rows, int64_t count, int64_t cols,
                   RowFormat format) {
  Placed memory(backend, {});
  Quantized out{std::vector<uint8_t>(format == RowFormat::int8 ? count * cols : count * cols / 2),
                std::vector<float>(count), std::vector<float>(count)};
  uint8_t* bytes = memory.place(out.bytes);
  const EmbeddingQuantizeArgs args{memory.place(rows),    count, cols, format, bytes, memory.place(out.scale),
                                   memory.place(out.bias)};
  check(backend.embeddingQuantize({}, args));
  memory.fetch(out.bytes, bytes);
  memory.fetch(out.scale, args.scale);
  memory.fetch(out.bias, args.bias);
  return out;
}

const Backend& emulated() {
  static const Backend backend = cuda::emulatedBackend();
  return backend;
}

}  // namespace

TEST(rowsHaveTheBytesOfTheCpu) {
  for (const RowFormat format : {RowFormat::int8, RowFormat::int4}) {
    for (const auto& [count, cols] : {std::pair<int64_t, int64_t>{0, 2}, {1, 2}, {21, 30}, {9, 70}, {3, 256}}) {
      Random random(1, 0);
      std::vector<float> rows;
      for (int64_t i = 0; i < count * cols; ++i) rows.push_back(static_cast<float>(random.normal()));
      if (count > 2) std::fill_n(rows.begin() + cols, cols, 3.5f);         // no spread
      if (count > 2) rows[2 * cols] = -3e38f, rows[2 * cols + 1] = 3e38f;  // a spread that overflows
      const Quantized cpu = quantize(cpuBackend(), rows, count, cols, format);
      simt::everySchedule([&] { CHECK(quantize(emulated(), rows, count, cols, format) == cpu); });
    }
  }
}

TEST(rowsThatAreNotFiniteAreNamed) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> rows(20 * 34, 1.0f);
    rows[13 * 34 + 33] = rows[17 * 34] = bad;
    std::string message;
    try {
      quantize(emulated(), rows, 20, 34, RowFormat::int8);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::value);
      message = error.what();
    }
    CHECK(message == "table: expected finite numbers but row 13 has others");
    CHECK(simt::liveAllocations() == 0);
  }
}

TEST_MAIN()
