#include "driver/verify_bytes.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "driver/conveyor.hpp"
#include "driver/digest.hpp"
#include "driver/side_files.hpp"
#include "kernels/buffer.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

constexpr std::uint64_t kChunkBytes = std::uint64_t{1} << 20;
constexpr std::size_t kChunks = 16;

/// The part of tensor `tensor` that lies in a chunk.
struct Piece {
  std::size_t tensor;
  std::uint64_t begin;  // within the tensor
  std::uint64_t bytes;
};

/// A stretch of the output file, and beside it what the source says should be there.
struct Chunk {
  Buffer<std::byte> found{host_memory, static_cast<std::int64_t>(kChunkBytes)};
  Buffer<std::byte> expected{host_memory, static_cast<std::int64_t>(kChunkBytes)};
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::vector<Piece> pieces;
};

/// Bytes [begin, begin + into.size()) of a slice. @param found  what is there: a constant that is not known is that
void read_slice(const Checkpoint& source, const Slice& slice, std::uint64_t begin, std::span<const std::byte> found,
                std::span<std::byte> into) {
  if (slice.source == nullptr) {
    std::ranges::copy(slice.constant.empty() ? found : slice.constant.subspan(begin, into.size()), into.begin());
    return;
  }
  if (slice.rows == nullptr) {
    source.read(*slice.source, begin, into);
    return;
  }
  const std::uint64_t row_bytes = slice.source->bytes / static_cast<std::uint64_t>(slice.source->shape[0]);
  while (!into.empty()) {
    const std::uint64_t within = begin % row_bytes;
    const std::uint64_t bytes = std::min<std::uint64_t>(row_bytes - within, into.size());
    const auto row = static_cast<std::uint64_t>((*slice.rows)[begin / row_bytes]);
    source.read(*slice.source, row * row_bytes + within, into.first(bytes));
    into = into.subspan(bytes);
    begin += bytes;
  }
}

class FileVerifier {
 public:
  FileVerifier(const OpenModel& output, const OpenModel& source, const std::vector<Slice>& slices,
               const ManifestFile& entry, std::size_t file, Quantizer* quantizer)
      : tensors_{output.checkpoint.tensors()},
        source_{source.checkpoint},
        slices_{slices},
        entry_{entry},
        derived_{quantizer, source.checkpoint},
        input_{output.checkpoint.directory() / output.checkpoint.files()[file]} {
    const auto before = [](const Tensor& tensor, std::size_t f) { return std::cmp_less(tensor.file, f); };
    first_ =
        static_cast<std::size_t>(std::lower_bound(tensors_.begin(), tensors_.end(), file, before) - tensors_.begin());
    reading_ = first_;
  }

  void run(const std::function<void(std::int64_t bytes)>& progress) {
    if (input_.size() != entry_.bytes) {
      fail(ExitCode::bad_input, "{}: has {} bytes, the manifest says {}", input_.path(), input_.size(), entry_.bytes);
    }
    std::array<Chunk, kChunks> chunks;
    const std::array<std::function<void(std::size_t)>, 2> stages{
        [&](std::size_t slot) { sha256_.update(std::span(chunks[slot].found.data(), chunks[slot].bytes)); },
        [&](std::size_t slot) {
          for (const Piece& piece : chunks[slot].pieces) compare(chunks[slot], piece);
          if (progress) progress(static_cast<std::int64_t>(chunks[slot].bytes));
        }};
    run_conveyor(
        kChunks, [&](std::size_t slot) { return read(chunks[slot]); }, stages);
    if (sha256_.hex() != entry_.sha256) {
      fail(ExitCode::bad_input,
           "{}: its sha-256 is not the manifest's, though its tensors are right: the header differs", input_.path());
    }
  }

 private:
  /// The next stretch of the file; false at its end.
  bool read(Chunk& chunk) {
    chunk.pieces.clear();
    chunk.offset = offset_;
    chunk.bytes = std::min(kChunkBytes, input_.size() - offset_);
    if (chunk.bytes == 0) return false;
    input_.read(offset_, {chunk.found.data(), chunk.bytes});
    offset_ += chunk.bytes;
    for (; reading_ - first_ < entry_.tensors.size(); ++reading_) {
      const Tensor& tensor = tensors_[reading_];
      if (tensor.offset >= offset_) break;
      const std::uint64_t begin = std::max(tensor.offset, chunk.offset);
      const std::uint64_t end = std::min(tensor.offset + tensor.bytes, offset_);
      chunk.pieces.push_back({reading_, begin - tensor.offset, end - begin});
      const std::uint64_t at = begin - chunk.offset;
      read_expected(slices_[reading_], begin - tensor.offset, {chunk.found.data() + at, end - begin},
                    {chunk.expected.data() + at, end - begin});
      if (end < tensor.offset + tensor.bytes) break;  // goes on in the next chunk
    }
    return true;
  }

  void read_expected(const Slice& slice, std::uint64_t begin, std::span<const std::byte> found,
                     std::span<std::byte> into) {
    if (!slice.derived) return read_slice(source_, slice, begin, found, into);
    const std::vector<std::byte>& bytes = derived_.bytes(*slice.source, *slice.derived);
    REAP_CHECK(begin + into.size() <= bytes.size(), "{} makes {} bytes", slice.source->name, bytes.size());
    std::memcpy(into.data(), bytes.data() + begin, into.size());
  }

  void compare(const Chunk& chunk, const Piece& piece) {
    const Tensor& tensor = tensors_[piece.tensor];
    const std::uint64_t at = tensor.offset + piece.begin - chunk.offset;
    const std::span<const std::byte> found(chunk.found.data() + at, piece.bytes);
    const std::span<const std::byte> expected(chunk.expected.data() + at, piece.bytes);
    if (!std::ranges::equal(found, expected)) fail_difference(piece, found, expected);
    if (!xxh3_) xxh3_.emplace();
    xxh3_->update(found);
    if (piece.begin + piece.bytes < tensor.bytes) return;
    const std::string digest = xxh3_->hex();
    xxh3_.reset();
    const std::string& listed = entry_.tensors[piece.tensor - first_].xxh3;
    if (digest == listed) return;
    fail(ExitCode::bad_input, "{}: tensor {}: its xxh3-128 is {}, the manifest says {}", input_.path(),
         shown(tensor.name), digest, listed);
  }

  [[noreturn]] void fail_difference(const Piece& piece, std::span<const std::byte> found,
                                    std::span<const std::byte> expected) const {
    const auto first = std::ranges::mismatch(found, expected).in1 - found.begin();
    if (slices_[piece.tensor].source == nullptr) {
      fail(ExitCode::bad_input, "{}: tensor {}: is not the expert's mean output", input_.path(),
           shown(tensors_[piece.tensor].name));
    }
    fail(ExitCode::bad_input, "{}: tensor {}: differs from its source {} in {}, from byte {} on", input_.path(),
         shown(tensors_[piece.tensor].name), shown(slices_[piece.tensor].source->name),
         source_.files()[slices_[piece.tensor].source->file], piece.begin + static_cast<std::uint64_t>(first));
  }

  const std::vector<Tensor>& tensors_;
  const Checkpoint& source_;
  const std::vector<Slice>& slices_;
  const ManifestFile& entry_;
  DerivedTensors derived_;
  InputFile input_;
  std::size_t first_ = 0;     // tensor of the file
  std::size_t reading_ = 0;   // tensor that the next byte belongs to
  std::uint64_t offset_ = 0;  // of the next byte
  Sha256 sha256_;
  std::optional<Xxh3> xxh3_;  // of the tensor that is being compared
};

/// Reads two files side by side. @return the sha-256 of the first
std::string compare_files(const std::filesystem::path& found_path, const std::filesystem::path& expected_path) {
  const InputFile found(found_path);
  const InputFile expected(expected_path);
  if (found.size() != expected.size()) {
    fail(ExitCode::bad_input, "{}: has {} bytes, the source's has {}", found.path(), found.size(), expected.size());
  }
  Sha256 sha256;
  Chunk chunk;
  for (std::uint64_t begin = 0; begin < found.size(); begin += chunk.bytes) {
    chunk.bytes = std::min(found.size() - begin, kChunkBytes);
    const std::span<std::byte> a(chunk.found.data(), chunk.bytes);
    const std::span<std::byte> b(chunk.expected.data(), chunk.bytes);
    found.read(begin, a);
    expected.read(begin, b);
    if (!std::ranges::equal(a, b)) fail(ExitCode::bad_input, "{}: differs from the source's", found.path());
    sha256.update(a);
  }
  return sha256.hex();
}

}  // namespace

void verify_file(const OpenModel& output, const OpenModel& source, const std::vector<Slice>& slices,
                 const Manifest& manifest, std::size_t file, Quantizer* quantizer,
                 const std::function<void(std::int64_t bytes)>& progress) {
  FileVerifier(output, source, slices, manifest.files[file], file, quantizer).run(progress);
}

void verify_side_files(const Checkpoint& output, const Checkpoint& source, const Manifest& manifest) {
  std::map<std::string, std::string> expected;  // name in the source, by name in the output
  for (const auto& [name, from] : inherited_side_files(source, manifest.quantize.has_value()))
    expected.emplace(name, from);
  for (const ManifestSideFile& entry : manifest.side_files) {
    const std::filesystem::path path = output.directory() / entry.name;
    // config.json, the index and the card are not the source's; they are compared with themselves, for their digest.
    const auto copied = expected.extract(entry.name);
    const std::string digest = compare_files(path, copied ? source.directory() / copied.mapped() : path);
    if (digest == entry.sha256) continue;
    fail(ExitCode::bad_input, "{}: its sha-256 is {}, the manifest says {}", path.string(), digest, entry.sha256);
  }
  if (!expected.empty()) {
    fail(ExitCode::bad_input, "{}: {} of the source is not among the manifest's files", output.directory().string(),
         shown(expected.begin()->second));
  }
}

}  // namespace reap
