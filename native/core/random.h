// Counter-based random numbers: each draw is a pure function of (seed, row, step), so a result never depends on
// which thread made it. Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

namespace topknot {

constexpr std::array<uint32_t, 4> philox(uint64_t seed, uint64_t row, uint64_t step) {
  std::array<uint32_t, 4> c{static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32), static_cast<uint32_t>(row),
                            static_cast<uint32_t>(row >> 32)};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(a)};
  }
  return c;
}

/// The numbers of one (seed, row), drawn in order.
class Random {
 public:
  Random(uint64_t seed, uint64_t row) : seed_(seed), row_(row) {}

  uint32_t bits() {
    if (at_ == 4) {
      block_ = philox(seed_, row_, step_++);
      at_ = 0;
    }
    return block_[at_++];
  }
  uint64_t bits64() {
    const uint64_t high = bits();
    return high << 32 | bits();
  }
  /// Uniform in [0, 1).
  double uniform() { return static_cast<double>(bits64() >> 11) * 0x1p-53; }
  /// Uniform in [0, n), n > 0, without modulo bias (Lemire 2019).
  uint64_t below(uint64_t n) {
    unsigned __int128 m = static_cast<unsigned __int128>(bits64()) * n;
    if (static_cast<uint64_t>(m) < n) {
      const uint64_t floor = -n % n;
      while (static_cast<uint64_t>(m) < floor) m = static_cast<unsigned __int128>(bits64()) * n;
    }
    return static_cast<uint64_t>(m >> 64);
  }
  /// The same for n up to 2^32 - 1, from half as many bits.
  uint32_t below32(uint32_t n) {
    uint64_t m = uint64_t{bits()} * n;
    if (static_cast<uint32_t>(m) < n) {
      const uint32_t floor = -n % n;
      while (static_cast<uint32_t>(m) < floor) m = uint64_t{bits()} * n;
    }
    return static_cast<uint32_t>(m >> 32);
  }
  /// Standard normal (Box-Muller; the second value is dropped to keep draws independent of history).
  double normal() {
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

 private:
  uint64_t seed_, row_, step_ = 0;
  std::array<uint32_t, 4> block_{};
  int at_ = 4;
};

}  // namespace topknot
