#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "shard/checkpoint.hpp"

namespace reap {

/// Streaming SHA-256 (OpenSSL), as hex at the end.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void update(std::span<const std::byte> bytes);
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The SHA-256 of a text, as hex.
std::string sha256_of(std::string_view text);
/// The same of a file. @throws Error(io), Error(bad_input) when it is absent
std::string sha256_of_file(const std::filesystem::path& file);

/// Streaming XXH3-128, as hex (canonical, big-endian) at the end.
class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  void update(std::span<const std::byte> bytes);
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Identity of a checkpoint without reading its data: SHA-256 over config.json's bytes and, in name order, every
/// tensor's name, dtype and shape. (The manifest of a pruned model holds digests of the data.)
std::string model_digest(const Checkpoint& checkpoint);

}  // namespace reap
