#include "driver/digest.hpp"

#include <gtest/gtest.h>

#include <string_view>

namespace reap {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

template <class Hash>
std::string hash(std::initializer_list<std::string_view> pieces) {
  Hash hash;
  for (const std::string_view piece : pieces) hash.update(bytes(piece));
  return hash.hex();
}

TEST(Digest, Sha256OfKnownTexts) {  // FIPS 180-4
  EXPECT_EQ(hash<Sha256>({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash<Sha256>({"abc"}), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Digest, Xxh3OfKnownTexts) {  // as xxhsum -H2 prints them
  EXPECT_EQ(hash<Xxh3>({}), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(hash<Xxh3>({"abc"}), "06b05ab6733a618578af5f94892f3950");
}

TEST(Digest, PiecesDoNotMatter) {
  EXPECT_EQ(hash<Sha256>({"ab", "", "c"}), hash<Sha256>({"abc"}));
  EXPECT_EQ(hash<Xxh3>({"a", "bc", ""}), hash<Xxh3>({"abc"}));
}

TEST(Digest, OfAModelFollowsConfigAndTensorsOnly) {
  const std::filesystem::path data = REAP_TEST_DATA;
  const std::string bf16 = model_digest(Checkpoint(data / "m2-mini-bf16"));
  EXPECT_EQ(bf16.size(), 64u);
  EXPECT_EQ(bf16, model_digest(Checkpoint(data / "m2-mini-bf16")));
  EXPECT_NE(bf16, model_digest(Checkpoint(data / "m2-mini-fp8")));
}

}  // namespace
}  // namespace reap
