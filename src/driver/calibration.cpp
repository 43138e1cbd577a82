#include "driver/calibration.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <set>
#include <string_view>

#include "driver/digest.hpp"
#include "driver/hdf5.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

static_assert(std::endian::native == std::endian::little, "digests are defined over little-endian bytes");

constexpr std::string_view kSchema = "reap-calibration-1";
constexpr std::int64_t kPiece = 1 << 20;  // tokens read at a time where all of them are needed

std::vector<std::int64_t> read_offsets(const Hdf5Reader& file, std::int64_t tokens) {
  const Extents extents = file.extents<std::int64_t>("/offsets", 1);
  const auto offsets = file.read<std::int64_t>("/offsets", extents);
  const std::string& name = file.file();
  if (offsets.size() < 2) fail(ExitCode::bad_input, "{}: it holds no samples", name);
  if (offsets.front() != 0) fail(ExitCode::bad_input, "{}: /offsets starts at {}, not 0", name, offsets.front());
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] == offsets[i - 1]) fail(ExitCode::bad_input, "{}: sample {} is empty; leave it out", name, i - 1);
    if (offsets[i] < offsets[i - 1]) {
      fail(ExitCode::bad_input, "{}: /offsets falls from {} to {} after sample {}", name, offsets[i - 1], offsets[i],
           i - 1);
    }
  }
  if (offsets.back() != tokens) {
    fail(ExitCode::bad_input, "{}: /offsets ends at {}, but there are {} tokens", name, offsets.back(), tokens);
  }
  return offsets;
}

/// The domain of each sample; all of one domain when the file does not say.
std::vector<std::uint8_t> read_domain(const Hdf5Reader& file, std::int64_t samples) {
  if (!file.has("/domain")) return std::vector<std::uint8_t>(static_cast<std::size_t>(samples), 0);
  return file.read<std::uint8_t>("/domain", {samples});
}

/// Names as the file gives them; without names, the domains' numbers.
std::vector<std::string> read_domain_names(const Hdf5Reader& file, const std::vector<std::uint8_t>& domain) {
  const auto highest = std::ranges::max_element(domain);
  const auto used = static_cast<std::size_t>(*highest) + 1;
  if (!file.has_attribute("domains")) {
    std::vector<std::string> numbers;
    for (std::size_t i = 0; i < used; ++i) numbers.push_back(std::to_string(i));
    return numbers;
  }
  std::vector<std::string> names = file.texts("domains");
  if (names.size() > 1 && !file.has("/domain")) {
    fail(ExitCode::bad_input, "{}: there are {} domain names, but no /domain that says which sample is of which",
         file.file(), names.size());
  }
  if (names.size() < used) {
    fail(ExitCode::bad_input, "{}: sample {} is of domain {}, but only {} domains have names", file.file(),
         highest - domain.begin(), *highest, names.size());
  }
  if (names.size() > std::size_t{std::numeric_limits<std::uint8_t>::max()} + 1) {
    fail(ExitCode::bad_input, "{}: {} domains, at most 256 are possible", file.file(), names.size());
  }
  if (std::set<std::string>(names.begin(), names.end()).size() != names.size()) {
    fail(ExitCode::bad_input, "{}: two domains have the same name", file.file());
  }
  return names;
}

/// Reads tokens of an open file on demand, refusing those the model does not have.
class TokenReader {
 public:
  TokenReader(std::shared_ptr<const Hdf5Reader> file, std::vector<std::int64_t> offsets, std::int64_t vocab)
      : file_{std::move(file)}, offsets_{std::move(offsets)}, vocab_{vocab} {}

  std::vector<std::int32_t> operator()(std::int64_t begin, std::int64_t end) const {
    REAP_CHECK(0 <= begin && begin <= end && end <= offsets_.back(), "tokens [{}, {}) of {}", begin, end,
               offsets_.back());
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(end - begin));
    file_->read_range<std::int32_t>("/tokens", begin, tokens);
    const auto unknown = std::ranges::find_if(tokens, [&](std::int32_t token) { return token < 0 || token >= vocab_; });
    if (unknown != tokens.end()) fail_token(*unknown, begin + (unknown - tokens.begin()));
    return tokens;
  }

 private:
  [[noreturn]] void fail_token(std::int32_t token, std::int64_t position) const {
    const auto sample = std::ranges::upper_bound(offsets_, position) - offsets_.begin() - 1;
    fail(ExitCode::bad_input,
         "{}: sample {}, position {}: token id {} is not in the model's vocabulary of {}; was it made with another "
         "tokenizer?",
         file_->file(), sample, position - offsets_[static_cast<std::size_t>(sample)], token, vocab_);
  }

  std::shared_ptr<const Hdf5Reader> file_;
  std::vector<std::int64_t> offsets_;
  std::int64_t vocab_;
};

template <class T>
void add(Xxh3& hash, const std::vector<T>& values) {
  const auto size = static_cast<std::int64_t>(values.size());
  hash.update(std::as_bytes(std::span(&size, 1)));
  hash.update(std::as_bytes(std::span(values)));
}

}  // namespace

Calibration open_calibration(const std::filesystem::path& path, std::int64_t vocab) {
  const auto file = std::make_shared<const Hdf5Reader>(path);
  if (!file->has_attribute("schema")) {
    fail(ExitCode::bad_input, "{}: not a calibration file: it has no attribute \"schema\"", file->file());
  }
  if (const std::string schema = file->text("schema"); schema != kSchema) {
    fail(ExitCode::bad_input, "{}: its schema is \"{}\", a calibration file has \"{}\"", file->file(), schema, kSchema);
  }
  const std::int64_t tokens = file->extents<std::int32_t>("/tokens", 1)[0];

  Calibration calibration;
  Samples& samples = calibration.samples;
  samples.offsets = read_offsets(*file, tokens);
  samples.domain = read_domain(*file, static_cast<std::int64_t>(samples.offsets.size()) - 1);
  calibration.domain_names = read_domain_names(*file, samples.domain);
  samples.domains = static_cast<std::int64_t>(calibration.domain_names.size());
  samples.read_tokens = TokenReader(file, samples.offsets, vocab);
  if (file->has_attribute("tokenizer_sha256")) calibration.tokenizer_sha256 = file->text("tokenizer_sha256");
  return calibration;
}

std::string calibration_digest(const Calibration& calibration) {
  const Samples& samples = calibration.samples;
  Xxh3 hash;
  hash.update(std::as_bytes(std::span(kSchema)));
  add(hash, samples.offsets);
  add(hash, samples.domain);
  for (const std::string& name : calibration.domain_names) add(hash, std::vector<char>(name.begin(), name.end()));
  for (std::int64_t begin = 0; begin < samples.tokens(); begin += kPiece) {
    const auto tokens = samples.read_tokens(begin, std::min(begin + kPiece, samples.tokens()));
    hash.update(std::as_bytes(std::span(tokens)));
  }
  return hash.hex();
}

}  // namespace reap
