#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "kernels/fixed128.hpp"

namespace reap {

/// The quantities summed over the slots of an expert. g is the gate value, f the expert's output before the gate.
enum class Field : std::uint8_t { gate, norm, gate_norm, norm_sq, gate_norm_sq };

struct FieldInfo {
  Field field;
  std::string_view name;  // as in files: /fields/<name>
  int fraction_bits;
};

/// Sum g, sum |f|, sum g|f|, sum |f|^2, sum (g|f|)^2. The count of slots is a field too, but a plain integer.
constexpr std::array<FieldInfo, 5> kFields{{
    {Field::gate, "gate", kFractionBits},
    {Field::norm, "norm", kFractionBits},
    {Field::gate_norm, "gate_norm", kFractionBits},
    {Field::norm_sq, "norm_sq", kSquareFractionBits},
    {Field::gate_norm_sq, "gate_norm_sq", kSquareFractionBits},
}};

/// One expert's sums in a table: the count, then kDigits digits per field in the order of kFields.
constexpr std::int64_t kSumsPerExpert = 1 + static_cast<std::int64_t>(kFields.size()) * kDigits;

/// Where the digits of `field` start within an expert's sums; the count is at 0.
constexpr std::int64_t digits_offset(Field field) { return 1 + static_cast<std::int64_t>(field) * kDigits; }

}  // namespace reap
