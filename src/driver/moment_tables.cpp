#include "driver/moment_tables.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "kernels/check.hpp"

namespace reap {
namespace {

std::string path_of(InputKind kind) { return fmt::format("/moments/{}", name_of(kind)); }

/// Whether a block's triangle can be moments: squares are not negative, and no product is beyond what they allow. Sums
/// of products are rounded in fp32 and then to their unit, which is most where few are summed.
bool possible(std::span<const std::int64_t> block, std::int64_t size) {
  constexpr double kRounded = 1.001;
  constexpr double kUnits = 0x1p20;  // of sums of thousands of chunks, and of squares that were rounded to nothing
  const auto square = [&](std::int64_t i) { return block[static_cast<std::size_t>(triangle(i) + i)]; };
  for (std::int64_t i = 0; i < size; ++i) {
    if (square(i) < 0 || square(i) >= kMomentEnd) return false;
    const double own = std::sqrt(static_cast<double>(square(i))) * kRounded;
    for (std::int64_t j = 0; j < i; ++j) {
      const auto product = static_cast<double>(block[static_cast<std::size_t>(triangle(i) + j)]);
      if (std::abs(product) > own * std::sqrt(static_cast<double>(square(j))) + kUnits) return false;
    }
  }
  return true;
}

bool possible_input(std::span<const std::int64_t> moments, std::int64_t width) {
  for (std::int64_t first = 0; first < width; first += kMomentBlock) {
    const std::int64_t size = std::min(kMomentBlock, width - first);
    if (!possible(moments.first(static_cast<std::size_t>(triangle(size))), size)) return false;
    moments = moments.subspan(static_cast<std::size_t>(triangle(size)));
  }
  return true;
}

[[noreturn]] void refuse(const std::string& file, InputKind kind, std::int64_t layer) {
  fail(ExitCode::bad_input, "{}: {}: layer {}: a sum is beyond what the squares allow: the file is damaged", file,
       path_of(kind), layer);
}

/// The channels that have so many moments. @throws Error(bad_input) when no number of channels has
std::int64_t width_of_moments(std::int64_t count, const std::string& file, InputKind kind) {
  const std::int64_t blocks = count / triangle(kMomentBlock), rest = count % triangle(kMomentBlock);
  const auto last = static_cast<std::int64_t>((std::sqrt(8 * static_cast<double>(rest) + 1) - 1) / 2);
  const std::int64_t width = blocks * kMomentBlock + last;
  if (width > 0 && moment_count(width) == count) return width;
  fail(ExitCode::bad_input, "{}: {}: {} moments are of no number of channels", file, path_of(kind), count);
}

}  // namespace

void write_moment_tables(Hdf5Writer& file, const Saliency& saliency) {
  if (saliency.moments.empty()) return;
  file.group("/moments");
  for (const InputKind kind : kMomentKinds) {
    const InputMoments::Table& table = saliency.moments.at(kind);
    file.dataset<std::int64_t>(path_of(kind), {saliency.layers, moment_count(table.width)}, table.sums);
  }
}

void read_moment_tables(const Hdf5Reader& file, Saliency& table) {
  for (const InputKind kind : kMomentKinds) {
    const std::int64_t count = file.extents<std::int64_t>(path_of(kind), 2).back();
    table.moments.at(kind) = {width_of_moments(count, file.file(), kind),
                              file.read<std::int64_t>(path_of(kind), {table.layers, count})};
  }
}

std::vector<std::int64_t> read_moments(const Hdf5Reader& file, InputKind kind, std::int64_t layers, std::int64_t width,
                                       std::int64_t layer) {
  std::vector<std::int64_t> moments =
      file.read_slice<std::int64_t>(path_of(kind), {layers, moment_count(width)}, {layer});
  if (!possible_input(moments, width)) refuse(file.file(), kind, layer);
  return moments;
}

void check_moment_tables(const std::string& file, const Saliency& table) {
  for (const InputKind kind : kMomentKinds) {
    const InputMoments::Table& moments = table.moments.at(kind);
    const auto size = static_cast<std::size_t>(moment_count(moments.width));
    for (std::int64_t layer = 0; layer < table.layers; ++layer) {
      const auto own = std::span(moments.sums).subspan(static_cast<std::size_t>(layer) * size, size);
      if (!possible_input(own, moments.width)) refuse(file, kind, layer);
    }
  }
}

}  // namespace reap
