// Element types of tensors, and the two 16-bit floats that C++20 does not have.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"

namespace topknot {

/// IEEE 754 binary16, stored only: convert to float to compute.
struct Float16 {
  uint16_t bits;
};

/// The upper half of a float32, stored only: convert to float to compute.
struct BFloat16 {
  uint16_t bits;
};

// name, C++ type, bytes, name in a safetensors header
#define TOPKNOT_DTYPES(X)          \
  X(float32, float, 4, "F32")      \
  X(float64, double, 8, "F64")     \
  X(float16, Float16, 2, "F16")    \
  X(bfloat16, BFloat16, 2, "BF16") \
  X(int8, int8_t, 1, "I8")         \
  X(uint8, uint8_t, 1, "U8")       \
  X(int32, int32_t, 4, "I32")      \
  X(int64, int64_t, 8, "I64")      \
  X(boolean, bool, 1, "BOOL")

enum class DType : int32_t {
#define X(name, type, bytes, safetensors) name,
  TOPKNOT_DTYPES(X)
#undef X
};

constexpr size_t sizeOf(DType dtype) {
  constexpr size_t bytes[] = {
#define X(name, type, size, safetensors) size,
      TOPKNOT_DTYPES(X)
#undef X
  };
  return bytes[static_cast<int>(dtype)];
}

/// The name users see: 'float32', ..., 'bool'.
constexpr std::string_view text(DType dtype) {
  constexpr std::string_view names[] = {
#define X(name, type, size, safetensors) #name,
      TOPKNOT_DTYPES(X)
#undef X
  };
  return dtype == DType::boolean ? "bool" : names[static_cast<int>(dtype)];
}

template <typename T>
struct DTypeOf;
#define X(name, type, size, safetensors)        \
  template <>                                   \
  struct DTypeOf<type> {                        \
    static constexpr DType value = DType::name; \
  };
TOPKNOT_DTYPES(X)
#undef X
template <typename T>
inline constexpr DType dtypeOf = DTypeOf<T>::value;

constexpr float toFloat(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

/// Rounds to nearest, ties to even; NaN stays NaN.
constexpr BFloat16 toBFloat16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

constexpr float toFloat(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t rest = x.bits & 0x7fffu;
  if (rest >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  // Scaling by 2^112 rebiases the exponent and turns half subnormals into normal floats exactly.
  const float scaled = std::bit_cast<float>(rest << 13) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

/// Rounds to nearest, ties to even; beyond 65504 gives infinity; NaN stays NaN.
constexpr Float16 toFloat16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t rest = u & 0x7fffffffu;
  if (rest > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (rest >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (rest < 0x38800000u) {  // below the smallest normal half: let the float adder do the rounding
    const float rounded = std::bit_cast<float>(rest) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - 0x3f000000u))};
  }
  const uint32_t odd = (rest >> 13) & 1u;
  return {static_cast<uint16_t>(sign | ((rest - 0x38000000u + 0xfffu + odd) >> 13))};
}

/// Calls f(T{}) with the C++ type of dtype.
template <typename F>
decltype(auto) dispatch(DType dtype, F&& f) {
  switch (dtype) {
#define X(name, type, size, safetensors) \
  case DType::name:                      \
    return f(type{});
    TOPKNOT_DTYPES(X)
#undef X
  }
  fail(ErrorCode::internal, "unknown dtype");
}

}  // namespace topknot
