#include "shard/safetensors.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <tuple>
#include <utility>

#include "kernels/check.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
constexpr std::uint64_t kMaxInt64 = std::numeric_limits<std::int64_t>::max();

// Reads {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, "__metadata__": {...}} in one pass,
// without a document in between: a large model has 100,000 tensors. Anything of another form is refused where it
// stands.
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(const std::string& file, std::uint64_t data_begin, std::uint64_t data_bytes)
      : file_{file}, data_begin_{data_begin}, data_bytes_{data_bytes} {}

  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;

  bool start_object(std::size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::header;
    } else if (place_ == Place::header_value && name_ == "__metadata__") {
      if (std::exchange(has_metadata_, true)) refuse("appears twice");
      place_ = Place::metadata;
    } else if (place_ == Place::header_value) {
      entry_ = Entry{};
      place_ = Place::entry;
    } else {
      refuse_value("an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::entry) finish_entry();
    place_ = place_ == Place::header ? Place::outside : Place::header;
    return true;
  }

  bool key(string_t& key) override {
    if (place_ == Place::header) {
      name_ = std::move(key);
      place_ = Place::header_value;
    } else if (place_ == Place::metadata) {
      key_ = std::move(key);
      place_ = Place::metadata_value;
    } else {
      begin_entry_member(key);
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata_value) {
      if (!metadata.emplace(key_, std::move(value)).second) refuse("the key {} appears twice", shown(key_));
      place_ = Place::metadata;
    } else if (place_ == Place::dtype) {
      entry_.dtype = dtype_named(value);
      if (!entry_.dtype) refuse("unknown dtype {}", shown(value));
      place_ = Place::entry;
    } else {
      refuse_value("a string");
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::shape) {
      place_ = Place::shape_item;
    } else if (place_ == Place::offsets) {
      place_ = Place::offsets_item;
    } else {
      refuse_value("an array");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::offsets_item && entry_.offset_count != 2) refuse("data_offsets must be two numbers");
    place_ = Place::entry;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape_item) {
      if (value > kMaxInt64) refuse("dimension {} is out of range", value);
      entry_.shape.push_back(static_cast<std::int64_t>(value));
    } else if (place_ == Place::offsets_item) {
      if (entry_.offset_count == 2) refuse("data_offsets must be two numbers");
      entry_.offsets[entry_.offset_count++] = value;
    } else {
      refuse_value("a number");
    }
    return true;
  }

  bool number_integer(number_integer_t) override { refuse_value("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { refuse_value("a number that is no 64-bit integer"); }
  bool null() override { refuse_value("null"); }
  bool boolean(bool) override { refuse_value("a boolean"); }
  bool binary(binary_t&) override { return false; }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    fail(ExitCode::bad_input, "{}: header: {}", file_, parse_error_text(position, error.what()));
  }

 private:
  enum class Place {
    outside,
    header,
    header_value,
    metadata,
    metadata_value,
    entry,
    dtype,
    shape,
    shape_item,
    offsets,
    offsets_item
  };

  struct Entry {
    std::optional<DType> dtype;
    bool has_shape = false;
    std::vector<std::int64_t> shape;
    bool has_offsets = false;
    std::array<std::uint64_t, 2> offsets{};
    std::size_t offset_count = 0;
  };

  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ExitCode::bad_input, "{}: tensor {}: {}", file_, shown(name_),
         fmt::format(format, std::forward<Args>(args)...));
  }

  [[noreturn]] void refuse_value(std::string_view found) const {
    if (place_ == Place::outside) fail(ExitCode::bad_input, "{}: header: {} where an object belongs", file_, found);
    refuse("{} where {} belongs", found, expected());
  }

  std::string_view expected() const {
    switch (place_) {
      case Place::metadata_value:
        return "a string";
      case Place::dtype:
        return "the name of a dtype";
      case Place::shape:
      case Place::offsets:
        return "an array";
      case Place::shape_item:
      case Place::offsets_item:
        return "a non-negative integer";
      default:
        return "an object of dtype, shape and data_offsets";
    }
  }

  void begin_entry_member(const std::string& key) {
    const auto first = [&](bool seen, Place place) {
      if (seen) refuse("the key {} appears twice", shown(key));
      place_ = place;
    };
    if (key == "dtype") {
      first(entry_.dtype.has_value(), Place::dtype);
    } else if (key == "shape") {
      first(std::exchange(entry_.has_shape, true), Place::shape);
    } else if (key == "data_offsets") {
      first(std::exchange(entry_.has_offsets, true), Place::offsets);
    } else {
      refuse("unknown key {}", shown(key));
    }
  }

  void finish_entry() {
    if (!entry_.dtype) refuse("dtype is missing");
    if (!entry_.has_shape) refuse("shape is missing");
    if (!entry_.has_offsets) refuse("data_offsets is missing");
    const auto [begin, end] = entry_.offsets;
    if (begin > end || end > data_bytes_) {
      refuse("data_offsets [{}, {}] are not within the {} bytes of data", begin, end, data_bytes_);
    }
    std::uint64_t bytes = size_of(*entry_.dtype);
    for (const std::int64_t size : entry_.shape) {
      if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(size), &bytes))
        refuse("the size of its shape overflows");
    }
    if (bytes != end - begin) {
      refuse("data_offsets [{}, {}] span {} bytes, but its shape takes {}", begin, end, end - begin, bytes);
    }
    tensors.push_back({std::move(name_), *entry_.dtype, std::move(entry_.shape), data_begin_ + begin, bytes});
  }

  const std::string& file_;
  std::uint64_t data_begin_, data_bytes_;
  Place place_ = Place::outside;
  std::string name_, key_;
  Entry entry_;
  bool has_metadata_ = false;
};

void refuse_duplicates(const std::string& file, const std::vector<TensorInfo>& tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) names.emplace_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) fail(ExitCode::bad_input, "{}: tensor {} appears twice in the header", file, shown(*twice));
}

// Sorts by offset and checks that the tensors cover [data_begin, file_bytes) without a hole or an overlap.
void check_tiling(const std::string& file, std::vector<TensorInfo>& tensors, std::uint64_t data_begin,
                  std::uint64_t file_bytes) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  std::uint64_t end = data_begin;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset != end) {
      fail(ExitCode::bad_input, "{}: tensor {} starts at offset {}, but the data before it end at {}: {}", file,
           shown(tensor.name), tensor.offset, end, tensor.offset < end ? "tensors overlap" : "a hole between tensors");
    }
    end += tensor.bytes;
  }
  if (end != file_bytes) {
    fail(ExitCode::bad_input,
         "{}: its tensors end at offset {}, the file at {}: incomplete, or bytes that belong to no tensor", file, end,
         file_bytes);
  }
}

std::uint64_t little_endian(const std::array<std::byte, kLengthBytes>& bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) value = value << 8 | static_cast<std::uint64_t>(bytes[i]);
  return value;
}

std::string read_header_text(const InputFile& file) {
  if (file.size() < kLengthBytes) {
    fail(ExitCode::bad_input, "{}: {} bytes are too short for a safetensors file", file.path(), file.size());
  }
  std::array<std::byte, kLengthBytes> length_bytes{};
  file.read(0, length_bytes);
  const std::uint64_t length = little_endian(length_bytes);
  if (length > kMaxHeaderBytes) {
    fail(ExitCode::bad_input, "{}: a header of {} bytes, at most {} are accepted", file.path(), length,
         kMaxHeaderBytes);
  }
  if (length > file.size() - kLengthBytes) {
    fail(ExitCode::bad_input, "{}: a header of {} bytes in a file of {}: incomplete, or not a safetensors file",
         file.path(), length, file.size());
  }
  std::string text(length, '\0');
  file.read(kLengthBytes, std::as_writable_bytes(std::span(text)));
  if (!text.starts_with('{')) fail(ExitCode::bad_input, "{}: header: must begin with '{{'", file.path());
  const std::size_t zero = text.find('\0');  // the parser would take it for the end of the text
  if (zero != std::string::npos) fail(ExitCode::bad_input, "{}: header: a zero byte at offset {}", file.path(), zero);
  return text;
}

}  // namespace

SafetensorsHeader read_safetensors_header(const InputFile& file) {
  const std::string text = read_header_text(file);
  const std::uint64_t data_begin = kLengthBytes + text.size();
  HeaderReader reader(file.path(), data_begin, file.size() - data_begin);
  Json::sax_parse(text.begin(), text.end(), &reader);
  refuse_duplicates(file.path(), reader.tensors);
  check_tiling(file.path(), reader.tensors, data_begin, file.size());
  return {std::move(reader.tensors), std::move(reader.metadata), file.size()};
}

SafetensorsHeader read_safetensors_header(const std::filesystem::path& file) {
  return read_safetensors_header(InputFile(file));
}

std::string safetensors_header_text(std::span<const TensorInfo> tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  std::uint64_t begin = 0;
  for (const TensorInfo& tensor : tensors) {
    header += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", Json(tensor.name).dump(),
                          name_of(tensor.dtype), fmt::join(tensor.shape, ","), begin, begin + tensor.bytes);
    begin += tensor.bytes;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string text;
  for (std::size_t i = 0; i < kLengthBytes; ++i) text += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return text + header;
}

}  // namespace reap
