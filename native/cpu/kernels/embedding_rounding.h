// Stochastic rounding to 16-bit floats: up with the probability that makes the expected value exact, so that updates
// far smaller than the spacing of the stored numbers still add up.
#pragma once
#include <bit>
#include <cstdint>

#include "core/dtype.h"
#include "core/random.h"

namespace topknot {

/// Sixteen random bits for each column of a row at one step.
class RowBits {
 public:
  constexpr RowBits(uint64_t seed, uint64_t row, uint64_t step) : seed_(seed), row_(row), step_(step << 24) {}
  /// Of eight columns from c, a multiple of 8.
  constexpr void fill(int64_t c, uint32_t (&bits)[8]) const {
    const auto words = philox(seed_, row_, step_ | static_cast<uint64_t>(c / 8));
    for (int i = 0; i < 4; ++i) {
      bits[2 * i] = words[i] & 0xffffu;
      bits[2 * i + 1] = words[i] >> 16;
    }
  }

 private:
  uint64_t seed_, row_, step_;
};

/// bits: 0 to 65535. Infinities and NaN stay; what rounds beyond the largest number becomes infinite.
constexpr BFloat16 roundStochastically(float x, uint32_t bits, BFloat16) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) >= 0x7f800000u) return toBFloat16(x);
  return {static_cast<uint16_t>((u + bits) >> 16)};
}
constexpr Float16 roundStochastically(float x, uint32_t bits, Float16) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (u & 0x80000000u) >> 16, rest = u & 0x7fffffffu;
  if (rest >= 0x7f800000u) return toFloat16(x);
  if (rest < 0x38800000u) {  // below the smallest normal half the spacing is 2^-24
    const double steps = static_cast<double>(std::bit_cast<float>(rest)) * 0x1p24 + bits * 0x1p-16;
    return {static_cast<uint16_t>(sign | static_cast<uint32_t>(steps))};
  }
  const uint32_t up = rest + (bits >> 3);  // thirteen bits are dropped
  return {static_cast<uint16_t>(sign | (up >= 0x47800000u ? 0x7c00u : (up - 0x38000000u) >> 13))};
}

}  // namespace topknot
