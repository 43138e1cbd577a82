#include "driver/importance_file.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "driver/digest.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

constexpr std::string_view kSchema = "reap-imatrix-1";

std::string digest_of(const std::filesystem::path& file) {
  constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;
  const InputFile input(file);
  Sha256 sha256;
  std::vector<std::byte> piece;
  for (std::uint64_t begin = 0; begin < input.size(); begin += piece.size()) {
    piece.resize(std::min(kPiece, input.size() - begin));
    input.read(begin, piece);
    sha256.update(piece);
  }
  return sha256.hex();
}

}  // namespace

ImportanceFile::ImportanceFile(const std::filesystem::path& file) : digest_{digest_of(file)}, reader_{file} {
  const std::string schema = reader_.has_attribute("schema") ? reader_.text("schema") : "";
  if (schema != kSchema) {
    fail(ExitCode::bad_input, "{}: is no importance file: its schema is {}, not {}", reader_.file(), shown(schema),
         kSchema);
  }
}

std::optional<std::vector<float>> ImportanceFile::of(std::string_view layer, std::int64_t inputs) const {
  const std::lock_guard lock(mutex_);
  const std::string path = "/importance/" + std::string(layer);
  if (!reader_.has(path)) return std::nullopt;
  std::vector<float> sums = reader_.read<float>(path, {inputs});
  if (std::ranges::any_of(sums, [](float sum) { return !std::isfinite(sum) || sum < 0; })) {
    fail(ExitCode::bad_input, "{}: {}: holds a number that is negative or not finite", reader_.file(), path);
  }
  return sums;
}

}  // namespace reap
