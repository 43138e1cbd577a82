#include "driver/copy_file.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "driver/conveyor.hpp"
#include "driver/digest.hpp"
#include "driver/file_writer.hpp"
#include "kernels/buffer.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;  // small enough to stay in cache from stage to stage
constexpr std::size_t kChunks = 16;  // a stage whose core is taken for a while does not stop the others

/// A part of a tensor within a chunk.
struct Piece {
  std::size_t bytes;
  bool last;  // the tensor ends with it
};

/// A run of the output file's bytes: first what is left of the header, then pieces of tensors, one after the other.
struct Chunk {
  Buffer<std::byte> memory{host_memory, kChunkBytes};
  std::size_t header_bytes = 0;
  std::size_t bytes = 0;
  std::vector<Piece> pieces;

  std::span<const std::byte> all() const { return {memory.data(), bytes}; }
  std::span<std::byte> rest() const { return {memory.data() + bytes, kChunkBytes - bytes}; }
};

/// The bytes of an output file from front to back: the header, then each tensor's slice of the source.
class Reader {
 public:
  Reader(const Checkpoint& source, const OutputFile& file, Quantizer* quantizer)
      : source_{source}, file_{file}, header_{header_text(file)}, derived_{quantizer, source} {}

  /// Fills a chunk with what comes next; false at the end of the file.
  bool fill(Chunk& chunk) {
    chunk.pieces.clear();
    chunk.header_bytes = std::min(header_.size() - header_read_, kChunkBytes);
    std::memcpy(chunk.memory.data(), header_.data() + header_read_, chunk.header_bytes);
    header_read_ += chunk.header_bytes;
    chunk.bytes = chunk.header_bytes;
    while (tensor_ < file_.tensors.size() && chunk.bytes < kChunkBytes) read_piece(chunk);
    return chunk.bytes > 0;
  }

 private:
  void read_piece(Chunk& chunk) {
    const OutputTensor& tensor = file_.tensors[tensor_];
    const std::size_t bytes = tensor.source < 0 ? copy_constant(tensor, chunk) : read_source(tensor, chunk);
    chunk.bytes += bytes;
    position_ += bytes;
    const bool last = position_ == tensor.info.bytes;
    chunk.pieces.push_back({bytes, last});
    if (!last) return;
    ++tensor_;
    position_ = 0;
  }

  std::size_t copy_constant(const OutputTensor& tensor, Chunk& chunk) const {
    const auto rest = tensor.constant.subspan(position_);
    const std::size_t bytes = std::min(rest.size(), chunk.rest().size());
    std::ranges::copy(rest.first(bytes), chunk.rest().begin());
    return bytes;
  }

  std::size_t read_source(const OutputTensor& tensor, Chunk& chunk) {
    const Tensor& from = source_.tensors()[tensor.source];
    const auto [begin, length] = run_at(tensor, from);
    const std::size_t bytes = std::min<std::uint64_t>(length, chunk.rest().size());
    if (tensor.derived) {
      const std::vector<std::byte>& made = derived_.bytes(from, *tensor.derived);
      REAP_CHECK(made.size() == tensor.info.bytes, "{} has {} bytes", tensor.info.name, made.size());
      std::memcpy(chunk.rest().data(), made.data() + begin, bytes);
    } else {
      source_.read(from, begin, chunk.rest().first(bytes));
    }
    return bytes;
  }

  /// Where the output's byte `position_` lies in the source tensor, and how many follow it in both.
  std::pair<std::uint64_t, std::uint64_t> run_at(const OutputTensor& tensor, const Tensor& from) const {
    if (tensor.rows.empty()) return {position_, tensor.info.bytes - position_};
    const std::uint64_t row_bytes = from.bytes / static_cast<std::uint64_t>(from.shape[0]);
    const std::uint64_t row = position_ / row_bytes;
    const std::uint64_t within = position_ % row_bytes;
    std::uint64_t end = row + 1;
    while (end < tensor.rows.size() && tensor.rows[end] == tensor.rows[end - 1] + 1) ++end;
    return {static_cast<std::uint64_t>(tensor.rows[row]) * row_bytes + within, (end - row) * row_bytes - within};
  }

  const Checkpoint& source_;
  const OutputFile& file_;
  std::string header_;
  DerivedTensors derived_;
  std::size_t header_read_ = 0;
  std::size_t tensor_ = 0;
  std::uint64_t position_ = 0;  // within the tensor, in the output
};

/// The xxh3-128 of each tensor as a file's bytes pass.
class TensorHasher {
 public:
  void pass(const Chunk& chunk) {
    std::span<const std::byte> rest = chunk.all().subspan(chunk.header_bytes);
    for (const Piece& piece : chunk.pieces) {
      if (!xxh3_) xxh3_.emplace();
      xxh3_->update(rest.first(piece.bytes));
      rest = rest.subspan(piece.bytes);
      if (!piece.last) continue;
      digests_.push_back(xxh3_->hex());
      xxh3_.reset();
    }
  }

  std::vector<std::string> finish() { return std::move(digests_); }

 private:
  std::optional<Xxh3> xxh3_;  // of the tensor that is passing
  std::vector<std::string> digests_;
};

}  // namespace

FileDigests copy_tensors(const Checkpoint& source, const OutputFile& file, const std::filesystem::path& directory,
                         Quantizer* quantizer, const std::function<void(std::int64_t bytes)>& progress) {
  FileWriter writer(directory / file.name, file.bytes);
  Reader reader(source, file, quantizer);
  Sha256 sha256;
  TensorHasher tensors;
  std::array<Chunk, kChunks> chunks;
  const std::array<std::function<void(std::size_t)>, 2> stages{
      [&](std::size_t slot) { sha256.update(chunks[slot].all()); },  // the slowest; all else goes beside it
      [&](std::size_t slot) {
        tensors.pass(chunks[slot]);
        writer.append(chunks[slot].all());
        if (progress) progress(static_cast<std::int64_t>(chunks[slot].bytes));
      }};
  run_conveyor(
      kChunks, [&](std::size_t slot) { return reader.fill(chunks[slot]); }, stages);
  writer.finish();
  return {file.bytes, sha256.hex(), tensors.finish()};
}

FileDigests hash_tensors(const OutputFile& file, const std::filesystem::path& directory) {
  const InputFile input(directory / file.name);
  Sha256 sha256;
  FileDigests digests{input.size(), {}, {}};
  std::vector<std::byte> piece;
  std::uint64_t offset = 0;
  const auto hash = [&](std::uint64_t bytes, Xxh3* xxh3) {
    for (; bytes > 0; bytes -= piece.size()) {
      piece.resize(std::min<std::uint64_t>(bytes, kChunkBytes));
      input.read(offset, piece);
      sha256.update(piece);
      if (xxh3 != nullptr) xxh3->update(piece);
      offset += piece.size();
    }
  };
  hash(header_text(file).size(), nullptr);
  for (const OutputTensor& tensor : file.tensors) {
    Xxh3 xxh3;
    hash(tensor.info.bytes, &xxh3);
    digests.xxh3.push_back(xxh3.hex());
  }
  digests.sha256 = sha256.hex();
  return digests;
}

FileDigests copy_side_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  const InputFile input(from);
  FileWriter writer(to, input.size());
  Sha256 sha256;
  Chunk chunk;
  for (std::uint64_t begin = 0; begin < input.size(); begin += chunk.bytes) {
    chunk.bytes = std::min<std::uint64_t>(input.size() - begin, kChunkBytes);
    input.read(begin, {chunk.memory.data(), chunk.bytes});
    sha256.update(chunk.all());
    writer.append(chunk.all());
  }
  writer.finish();
  return {input.size(), sha256.hex(), {}};
}

}  // namespace reap
