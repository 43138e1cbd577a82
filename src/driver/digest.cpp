#include "driver/digest.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "kernels/check.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

std::string hex_of(std::span<const unsigned char> bytes) {
  std::string text;
  for (const unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_{std::make_unique<State>()} {
  REAP_CHECK(state_->context != nullptr && EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1,
             "SHA-256 is not available in this OpenSSL");
}

Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) {
  REAP_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1, "SHA-256 failed");
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  REAP_CHECK(EVP_DigestFinal_ex(state_->context, digest.data(), &size) == 1, "SHA-256 failed");
  return hex_of(std::span(digest).first(size));
}

std::string sha256_of(std::string_view text) {
  Sha256 sha256;
  sha256.update(std::as_bytes(std::span(text)));
  return sha256.hex();
}

std::string sha256_of_file(const std::filesystem::path& file) {
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

struct Xxh3::State {
  XXH3_state_t* state = XXH3_createState();
  ~State() { XXH3_freeState(state); }
};

Xxh3::Xxh3() : state_{std::make_unique<State>()} {
  REAP_CHECK(state_->state != nullptr && XXH3_128bits_reset(state_->state) == XXH_OK, "XXH3 cannot begin");
}

Xxh3::~Xxh3() = default;

void Xxh3::update(std::span<const std::byte> bytes) {
  REAP_CHECK(XXH3_128bits_update(state_->state, bytes.data(), bytes.size()) == XXH_OK, "XXH3 failed");
}

std::string Xxh3::hex() {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_->state));
  return hex_of(canonical.digest);
}

std::string model_digest(const Checkpoint& checkpoint) {
  std::vector<const Tensor*> by_name;
  by_name.reserve(checkpoint.tensors().size());
  for (const Tensor& tensor : checkpoint.tensors()) by_name.push_back(&tensor);
  std::sort(by_name.begin(), by_name.end(), [](const Tensor* a, const Tensor* b) { return a->name < b->name; });

  Sha256 digest;
  // Lengths and separators keep two different lists from running together into the same bytes.
  const auto add = [&](std::string_view text) {
    const std::string length = fmt::format("{}:", text.size());
    digest.update(std::as_bytes(std::span(length)));
    digest.update(std::as_bytes(std::span(text)));
  };
  add(checkpoint.config_text());
  for (const Tensor* tensor : by_name) {
    add(tensor->name);
    add(name_of(tensor->dtype));
    add(fmt::format("{}", fmt::join(tensor->shape, ",")));
  }
  return digest.hex();
}

}  // namespace reap
