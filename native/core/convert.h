// A number of one element type as another, in the same way on the CPU and on GPUs.
#pragma once
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/dtype.h"

namespace topknot {

template <typename T>
inline constexpr bool isHalf = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;

/// Whether To can hold x: floats and truth values hold everything, integers what they can represent once its fraction
/// is cut off.
template <typename To, typename From>
constexpr bool holds(From x) {
  if constexpr (isHalf<From>) {
    return holds<To>(toFloat(x));
  } else if constexpr (std::is_same_v<To, bool> || !std::is_integral_v<To> || std::is_same_v<To, From>) {
    return true;
  } else if constexpr (std::is_floating_point_v<From>) {
    // int64 ends where neighbouring doubles are 1024 apart: none lies between its end and the next integer.
    constexpr double low = static_cast<double>(std::numeric_limits<To>::min());
    constexpr double high = low == 0 ? 256.0 : -low;
    const double value = static_cast<double>(x);
    return (sizeof(To) == 8 ? value >= low : value > low - 1) && value < high;
  } else if constexpr (sizeof(To) == 8) {
    return true;
  } else {
    const int64_t value = static_cast<int64_t>(x);
    return value >= static_cast<int64_t>(std::numeric_limits<To>::min()) &&
           value <= static_cast<int64_t>(std::numeric_limits<To>::max());
  }
}

/// x as To, which holds it: floats round to nearest even, fractions are cut off, truth values are x != 0.
template <typename To, typename From>
constexpr To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (isHalf<From>) {
    return convert<To>(toFloat(x));
  } else if constexpr (std::is_same_v<To, Float16>) {
    return toFloat16(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    return toBFloat16(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, bool>) {
    return x != From{};
  } else {
    return static_cast<To>(x);
  }
}

constexpr bool isInteger(DType t) { return t >= DType::int8 && t <= DType::int64; }

/// Whether there may be a number of `from` that `to` does not hold.
constexpr bool mayOverflow(DType from, DType to) {
  const bool floats = from <= DType::bfloat16;
  return isInteger(to) && from != to && (floats || sizeOf(from) >= sizeOf(to));
}

}  // namespace topknot
