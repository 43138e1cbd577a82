#include "driver/output_tables.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "driver/input_tables.hpp"
#include "driver/moment_tables.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr const char* kGram = "/gram/digits";
constexpr const char* kOutputs = "/outputs/sums";

constexpr std::int64_t kDigitEnd = std::int64_t{1} << 32;
constexpr std::int64_t kHighDigitEnd = std::int64_t{1} << 31;

// Squares in the table are of outputs rounded to activations, each to 2^-9 at worst; those in the fields are not.
constexpr double kRoundedSquares = 0.02;
// A term in the table and one in the fields are rounded to their units.
constexpr double kUnits = 0x1p-31;
// Terms are rounded to 2^-53 of the product of two norms, and some thousand of them per element of a dot product.
constexpr double kRoundedProducts = 1e-9;
constexpr double kRoundedOutputs = 1 + 0x1p-8;

bool canonical(std::span<const std::int64_t, kDigits> digits) {
  for (const std::int64_t digit : digits.first<kDigits - 1>()) {
    if (digit < 0 || digit >= kDigitEnd) return false;
  }
  return digits.back() >= -kHighDigitEnd && digits.back() < kHighDigitEnd;
}

/// One layer's table, with what its fields say.
class LayerCheck {
 public:
  LayerCheck(const std::string& file, const Saliency& table, const FieldTotals& totals, std::int64_t layer)
      : file_{file}, table_{table}, totals_{totals}, layer_{layer} {}

  void gram() const {
    const std::int64_t experts = table_.experts;
    std::vector<double> square(static_cast<std::size_t>(experts));
    for (std::int64_t i = 0; i < experts; ++i) {
      const double field = totals_.sum[static_cast<std::size_t>(Field::gate_norm_sq)][at(i)];
      square[static_cast<std::size_t>(i)] = pair(i, i);
      if (std::abs(pair(i, i) - field) <= kRoundedSquares * field + kUnits * count(i) && pair(i, i) >= 0) continue;
      refuse(i, i, pair(i, i), fmt::format("the squares in /fields come to {}", field));
    }
    for (std::int64_t i = 0; i < experts; ++i) {
      for (std::int64_t j = i; j < experts; ++j) {
        const double tokens = std::min(count(i), count(j));
        const double most = std::sqrt(square[static_cast<std::size_t>(i)] * square[static_cast<std::size_t>(j)]);
        if (std::abs(pair(i, j)) <= (tokens > 0 ? most * (1 + kRoundedProducts) + kUnits * tokens : 0)) continue;
        refuse(i, j, pair(i, j), fmt::format("from their squares it is at most {}", tokens > 0 ? most : 0));
      }
    }
  }

  void outputs() const {
    for (std::int64_t expert = 0; expert < table_.experts; ++expert) {
      const double most =
          std::ldexp(count(expert) * totals_.max_abs[at(expert)] * kRoundedOutputs, kOutputFractionBits) +
          count(expert);
      const std::int64_t first = (layer_ * table_.experts + expert) * table_.hidden;
      for (std::int64_t i = first; i < first + table_.hidden; ++i) {
        if (std::abs(static_cast<double>(table_.outputs[static_cast<std::size_t>(i)])) <= most) continue;
        fail(ExitCode::bad_input,
             "{}: {}: layer {}, expert {}: a sum is beyond count times max_abs: the file is damaged", file_, kOutputs,
             layer_, expert);
      }
    }
  }

 private:
  std::size_t at(std::int64_t expert) const { return static_cast<std::size_t>(layer_ * table_.experts + expert); }
  double count(std::int64_t expert) const { return static_cast<double>(totals_.count[at(expert)]); }
  double pair(std::int64_t i, std::int64_t j) const { return table_.gram_value(layer_, i, j); }

  [[noreturn]] void refuse(std::int64_t i, std::int64_t j, double value, const std::string& why) const {
    fail(ExitCode::bad_input, "{}: {}: layer {}, experts {} and {}: {} is impossible: {}", file_, kGram, layer_, i, j,
         value, why);
  }

  const std::string& file_;
  const Saliency& table_;
  const FieldTotals& totals_;
  std::int64_t layer_;
};

}  // namespace

void write_output_tables(Hdf5Writer& file, const Saliency& saliency) {
  if (!saliency.gram.empty()) {
    file.group("/gram");
    file.dataset<std::int64_t>(kGram, {saliency.layers, pair_count(saliency.experts), kDigits}, saliency.gram);
  }
  if (!saliency.outputs.empty()) {
    file.group("/outputs");
    file.dataset<std::int64_t>(kOutputs, {saliency.layers, saliency.experts, saliency.hidden}, saliency.outputs);
  }
  write_input_tables(file, saliency);
  write_moment_tables(file, saliency);
}

Collected collected_in(const Hdf5Reader& file) {
  return {file.has("/gram"), file.has("/outputs"), file.has("/imatrix"), file.has("/moments")};
}

void read_output_tables(const Hdf5Reader& file, const Collected& wanted, Saliency& table) {
  const Collected there = collected_in(file);
  if (wanted.gram && there.gram) {
    table.gram = file.read<std::int64_t>(kGram, {table.layers, pair_count(table.experts), kDigits});
    for (std::size_t i = 0; i < table.gram.size(); i += kDigits) {
      if (canonical(std::span<const std::int64_t, kDigits>(table.gram.data() + i, kDigits))) continue;
      fail(ExitCode::bad_input, "{}: {}: entry {} is not in canonical form (docs/numerics.md)", file.file(), kGram,
           i / kDigits);
    }
  }
  if (wanted.outputs && there.outputs) {
    table.hidden = file.extents<std::int64_t>(kOutputs, 3)[2];
    table.outputs = file.read<std::int64_t>(kOutputs, {table.layers, table.experts, table.hidden});
  }
  if (wanted.imatrix && there.imatrix) read_input_tables(file, table);
  if (wanted.moments && there.moments) read_moment_tables(file, table);
  check_output_tables(file.file(), table);
}

void check_output_tables(const std::string& file, const Saliency& table) {
  const Collected collected = table.collected();
  if (collected == Collected()) return;
  const FieldTotals totals = reap::totals(table);
  if (collected.imatrix) check_input_tables(file, table, totals);
  if (collected.moments) check_moment_tables(file, table);
  for (std::int64_t layer = 0; layer < table.layers; ++layer) {
    const LayerCheck check(file, table, totals, layer);
    if (collected.gram) check.gram();
    if (collected.outputs) check.outputs();
  }
}

}  // namespace reap
