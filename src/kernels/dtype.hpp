#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace reap {

/// Element types of a checkpoint, under the names that safetensors gives them.
enum class DType : std::uint8_t { boolean, u8, i8, f8_e4m3, f8_e5m2, u16, i16, f16, bf16, u32, i32, f32, u64, i64, f64 };

/// Bytes of one element.
std::size_t size_of(DType dtype);

/// The safetensors name ("BF16", "F8_E4M3").
std::string_view name_of(DType dtype);

/// The type of a safetensors name; nothing when the name is unknown.
std::optional<DType> dtype_named(std::string_view name);

/// The upper half of a float: 8 bits of exponent, 7 of fraction.
struct bf16 {
  std::uint16_t bits;
};

float to_float(bf16 value);
bf16 to_bf16(float value);                    // to nearest even; NaN stays NaN
float f16_to_float(std::uint16_t bits);       // IEEE binary16, subnormals included
float f8_e4m3_to_float(std::uint8_t bits);    // OCP e4m3fn: no infinities, 0x7f and 0xff are NaN

}  // namespace reap
