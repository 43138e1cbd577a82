#include "kernels/dtype.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

namespace reap {
namespace {

struct DTypeInfo {
  DType dtype;
  std::string_view name;
  std::size_t size;
};

constexpr std::array<DTypeInfo, 15> kDTypes{{
    {DType::boolean, "BOOL", 1},
    {DType::u8, "U8", 1},
    {DType::i8, "I8", 1},
    {DType::f8_e4m3, "F8_E4M3", 1},
    {DType::f8_e5m2, "F8_E5M2", 1},
    {DType::u16, "U16", 2},
    {DType::i16, "I16", 2},
    {DType::f16, "F16", 2},
    {DType::bf16, "BF16", 2},
    {DType::u32, "U32", 4},
    {DType::i32, "I32", 4},
    {DType::f32, "F32", 4},
    {DType::u64, "U64", 8},
    {DType::i64, "I64", 8},
    {DType::f64, "F64", 8},
}};

constexpr bool in_order_of_enum() {
  for (std::size_t i = 0; i < kDTypes.size(); ++i) {
    if (kDTypes[i].dtype != static_cast<DType>(i)) return false;
  }
  return true;
}
static_assert(in_order_of_enum());

const DTypeInfo& info(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)]; }

/// (-1)^sign * fraction * 2^exponent
float assemble(bool negative, int fraction, int exponent) {
  const float magnitude = std::ldexp(static_cast<float>(fraction), exponent);
  return negative ? -magnitude : magnitude;
}

float quiet_nan(bool negative) { return std::bit_cast<float>(negative ? 0xffc00000U : 0x7fc00000U); }

}  // namespace

std::size_t size_of(DType dtype) { return info(dtype).size; }

std::string_view name_of(DType dtype) { return info(dtype).name; }

std::optional<DType> dtype_named(std::string_view name) {
  const auto* found = std::find_if(kDTypes.begin(), kDTypes.end(), [&](const DTypeInfo& i) { return i.name == name; });
  if (found == kDTypes.end()) return std::nullopt;
  return found->dtype;
}

float to_float(bf16 value) { return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16); }

bf16 to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return {static_cast<std::uint16_t>((bits >> 16) | 0x40U)};  // quiet, or rounding made it inf
  const std::uint32_t lowest_kept = (bits >> 16) & 1U;
  return {static_cast<std::uint16_t>((bits + 0x7fffU + lowest_kept) >> 16)};  // half way goes to even
}

float f16_to_float(std::uint16_t bits) {
  const bool negative = (bits & 0x8000U) != 0;
  const int exponent = (bits >> 10) & 0x1f;
  const int fraction = bits & 0x3ff;
  if (exponent == 0x1f && fraction != 0) return quiet_nan(negative);
  if (exponent == 0x1f) return assemble(negative, 1, 128);  // infinity: 2^128 overflows
  if (exponent == 0) return assemble(negative, fraction, -24);
  return assemble(negative, fraction | 0x400, exponent - 25);
}

float f8_e4m3_to_float(std::uint8_t bits) {
  const bool negative = (bits & 0x80U) != 0;
  const int exponent = (bits >> 3) & 0xf;
  const int fraction = bits & 0x7;
  if (exponent == 0xf && fraction == 0x7) return quiet_nan(negative);
  if (exponent == 0) return assemble(negative, fraction, -9);
  return assemble(negative, fraction | 0x8, exponent - 10);
}

}  // namespace reap
