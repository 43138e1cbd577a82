#include "shard/safetensors.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shard/checkpoint_files.hpp"

namespace reap {
namespace {

class Safetensors : public testing::Test {
 protected:
  SafetensorsHeader read(const std::string& bytes) {
    write_file(file_, bytes);
    return read_safetensors_header(file_);
  }
  void expect_refused(const std::string& bytes, std::initializer_list<std::string_view> words) {
    expect_error(ExitCode::bad_input, {file_.string()}, [&] { read(bytes); });
    expect_error(ExitCode::bad_input, words, [&] { read(bytes); });
  }

  TemporaryDirectory directory_;
  std::filesystem::path file_ = directory_.path() / "x.safetensors";
};

TEST_F(Safetensors, ReadsEntriesInOrderOfTheirOffsets) {
  const std::string header =
      R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},"__metadata__":{"format":"pt","k":""},)"
      R"("a":{"data_offsets":[0,4],"shape":[],"dtype":"F32"}}   )";
  const SafetensorsHeader read_back = read(safetensors(header, std::string(16, 'x')));
  ASSERT_EQ(read_back.tensors.size(), 2u);
  const TensorInfo& a = read_back.tensors[0];
  const TensorInfo& b = read_back.tensors[1];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.dtype, DType::f32);
  EXPECT_TRUE(a.shape.empty());
  EXPECT_EQ(a.offset, 8 + header.size());
  EXPECT_EQ(a.bytes, 4u);
  EXPECT_EQ(b.shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(b.offset, 8 + header.size() + 4);
  EXPECT_EQ(b.bytes, 12u);
  EXPECT_EQ(read_back.metadata, (std::map<std::string, std::string>{{"format", "pt"}, {"k", ""}}));
  EXPECT_EQ(read_back.file_bytes, 8 + header.size() + 16);
}

TEST_F(Safetensors, AcceptsEmptyFilesAndEmptyTensors) {
  EXPECT_TRUE(read(safetensors("{}", "")).tensors.empty());
  const SafetensorsHeader header = read(safetensors(
      R"({"z":{"dtype":"F32","shape":[0,9223372036854775807,4],"data_offsets":[4,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
      R"("y":{"dtype":"F32","shape":[5,0],"data_offsets":[0,0]}})",
      "1234"));
  ASSERT_EQ(header.tensors.size(), 3u);
  EXPECT_EQ(header.tensors[0].name, "y");
  EXPECT_EQ(header.tensors[2].name, "z");
  EXPECT_EQ(header.tensors[2].bytes, 0u);
}

TEST_F(Safetensors, RefusesHeadersThatDoNotFitTheFile) {
  expect_refused("", {"too short"});
  expect_refused("\x02\0\0\0\0\0\0", {"too short"});
  expect_refused(little_endian(3) + "{}", {"header of 3 bytes"});
  expect_refused(little_endian(100'000'001) + "{}", {"100000001 bytes"});
  expect_refused(little_endian(~0ull) + "{}", {"18446744073709551615 bytes"});
  expect_refused(little_endian(0) + "{}", {"must begin with '{'"});
  expect_refused(safetensors(" {}", ""), {"must begin with '{'"});
  expect_refused(safetensors("[]", ""), {"must begin with '{'"});
}

// A sparse file: the largest header that is accepted, and one byte more.
TEST_F(Safetensors, HeaderLimitIsExact) {
  for (const std::uint64_t length : {100'000'000ull, 100'000'001ull}) {
    write_file(file_, little_endian(length) + "{}");
    std::filesystem::resize_file(file_, 8 + length);
    const std::string_view word = length > 100'000'000 ? "at most" : "zero byte at offset 2";
    expect_error(ExitCode::bad_input, {word}, [&] { read_safetensors_header(file_); });
  }
}

TEST_F(Safetensors, RefusesBrokenJson) {
  using namespace std::string_literals;
  expect_refused(safetensors("{", ""), {"header", "offset 1"});
  expect_refused(safetensors("{}{}", ""), {"offset 2"});
  expect_refused(safetensors("{}\0\0"s, ""), {"zero byte at offset 2"});
  expect_refused(safetensors("{" + bytes_tensor("a") + ",}", "1234"), {"header"});
  expect_refused(safetensors("{\"\xFF\":1}", ""), {"UTF-8"});
  std::string deep = R"({"a":{"shape":)" + std::string(1'000'000, '[');
  expect_refused(safetensors(deep, ""), {"\"a\"", "an array where a non-negative integer belongs"});
}

TEST_F(Safetensors, RefusesEntriesOfAnotherForm) {
  struct Case {
    const char* entry;
    std::string_view word;
  };
  const std::vector<Case> cases{
      {R"(1)", "a number where an object"},
      {R"(null)", "null where an object"},
      {R"([])", "an array where an object"},
      {R"({})", "dtype is missing"},
      {R"({"dtype":"U8","data_offsets":[0,4]})", "shape is missing"},
      {R"({"dtype":"U8","shape":[4]})", "data_offsets is missing"},
      {R"({"shape":[4],"data_offsets":[0,4]})", "dtype is missing"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1})", "unknown key \"x\""},
      {R"({"dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4]})", "\"shape\" appears twice"},
      {R"({"dtype":"U8","dtyp\u0065":"U8","shape":[4],"data_offsets":[0,4]})", "\"dtype\" appears twice"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[0,4],"data_offsets":[0,4]})", "\"data_offsets\" appears twice"},
      {R"({"dtype":"Q4","shape":[4],"data_offsets":[0,4]})", "unknown dtype \"Q4\""},
      {R"({"dtype":8,"shape":[4],"data_offsets":[0,4]})", "a number where the name of a dtype"},
      {R"({"dtype":"U8","shape":4,"data_offsets":[0,4]})", "a number where an array"},
      {R"({"dtype":"U8","shape":[[4]],"data_offsets":[0,4]})", "an array where a non-negative integer"},
      {R"({"dtype":"U8","shape":["4"],"data_offsets":[0,4]})", "a string where a non-negative integer"},
      {R"({"dtype":"U8","shape":[4.0],"data_offsets":[0,4]})", "no 64-bit integer"},
      {R"({"dtype":"U8","shape":[-4],"data_offsets":[0,4]})", "negative"},
      {R"({"dtype":"U8","shape":[true],"data_offsets":[0,4]})", "a boolean"},
      {R"({"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,4]})", "out of range"},
      {R"({"dtype":"U8","shape":[18446744073709551620],"data_offsets":[0,4]})", "no 64-bit integer"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[0]})", "must be two numbers"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[0,4,4]})", "must be two numbers"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[4,0]})", "[4, 0]"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":{}})", "an object where an array"},
      {R"({"dtype":"U8","shape":[5],"data_offsets":[0,5]})", "[0, 5] are not within the 4 bytes"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[18446744073709551612,18446744073709551615]})", "not within"},
      {R"({"dtype":"U8","shape":[3],"data_offsets":[0,4]})", "span 4 bytes, but its shape takes 3"},
      {R"({"dtype":"F32","shape":[4],"data_offsets":[0,4]})", "takes 16"},
      {R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]})", "overflows"},
      {R"({"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]})", "overflows"},
      {R"({"dtype":"U8","shape":[9223372036854775807,9223372036854775807,0],"data_offsets":[0,0]})", "overflows"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.entry);
    expect_refused(safetensors(std::string(R"({"the.tensor":)") + c.entry + "}", "1234"), {"\"the.tensor\"", c.word});
  }
}

TEST_F(Safetensors, RefusesMetadataOtherThanStrings) {
  expect_refused(safetensors(R"({"__metadata__":{"a":1}})", ""), {"__metadata__", "a number where a string"});
  expect_refused(safetensors(R"({"__metadata__":{"a":{}}})", ""), {"an object where a string"});
  expect_refused(safetensors(R"({"__metadata__":[]})", ""), {"an array"});
  expect_refused(safetensors(R"({"__metadata__":{"a":"1","\u0061":"2"}})", ""), {"\"a\" appears twice"});
  expect_refused(safetensors(R"({"__metadata__":{},"__metadata__":{}})", ""), {"__metadata__", "twice"});
}

TEST_F(Safetensors, RefusesDuplicateNamesEscapedOnesToo) {
  expect_refused(safetensors("{" + bytes_tensor("a") + "," + bytes_tensor("a") + "}", "1234"), {"\"a\" appears twice"});
  expect_refused(safetensors("{" + bytes_tensor("a") + "," + bytes_tensor("\\u0061") + "}", "1234"),
                 {"\"a\" appears twice"});
}

TEST_F(Safetensors, OffsetsTileTheDataExactly) {
  const auto header = [](int a, int b, int c, int d) {
    return fmt::format(
        R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},"b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
        b - a, a, b, d - c, c, d);
  };
  const std::string data(8, 'x');
  EXPECT_EQ(read(safetensors(header(4, 8, 0, 4), data)).tensors[0].name, "b");
  const auto at = [&](const std::string& text, int offset) {
    return fmt::format("offset {}", 8 + static_cast<int>(text.size()) + offset);
  };
  for (const auto& [text, name, offset, word] :
       {std::tuple{header(0, 4, 5, 8), "\"b\"", 5, "hole"}, std::tuple{header(1, 4, 4, 8), "\"a\"", 1, "hole"},
        std::tuple{header(0, 4, 3, 8), "\"b\"", 3, "overlap"}, std::tuple{header(0, 4, 0, 8), "\"b\"", 0, "overlap"},
        std::tuple{header(0, 4, 4, 7), "", 7, "belong to no tensor"}}) {
    SCOPED_TRACE(text);
    expect_refused(safetensors(text, data), {name, at(text, offset), word});
  }
  expect_refused(safetensors("{}", "x"), {"belong to no tensor"});
  // An empty tensor in the middle of another would share its place.
  expect_refused(safetensors(header(0, 8, 4, 4), data), {"\"b\"", "overlap"});
}

TEST_F(Safetensors, NamesInMessagesAreHarmless) { expect_refused(safetensors(R"({"\u001b[2J":1})", ""), {"\\x1b[2J"}); }

TEST_F(Safetensors, FilesThatAreNotFilesAreRefused) {
  expect_error(ExitCode::bad_input, {"x.safetensors", "No such file"}, [&] { read_safetensors_header(file_); });
  expect_error(ExitCode::bad_input, {"not a regular file"}, [&] { read_safetensors_header(directory_.path()); });
  ASSERT_EQ(mkfifo(file_.c_str(), 0600), 0);
  expect_error(ExitCode::bad_input, {"not a regular file"},
               [&] { read_safetensors_header(file_); });  // and does not hang
}

TEST_F(Safetensors, HeaderTextIsCanonical) {
  const std::vector<TensorInfo> tensors{
      {"a\"\u00e9", DType::bf16, {2, 3}, 77, 12}, {"z", DType::f8_e4m3, {}, 0, 1}, {"e", DType::f32, {0}, 5, 0}};
  const std::string text = safetensors_header_text(tensors);
  const std::string json =
      "{\"__metadata__\":{\"format\":\"pt\"},\"a\\\"\u00e9\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,"
      "12]},"
      "\"z\":{\"dtype\":\"F8_E4M3\",\"shape\":[],\"data_offsets\":[12,13]},\"e\":{\"dtype\":\"F32\",\"shape\":[0],"
      "\"data_offsets\":[13,13]}}";
  EXPECT_EQ(text.size() % 8, 0u);
  EXPECT_LT(text.size(), 8 + json.size() + 8);
  EXPECT_EQ(text.substr(0, 8), little_endian(text.size() - 8));
  EXPECT_EQ(text.substr(8), json + std::string(text.size() - 8 - json.size(), ' '));
  const SafetensorsHeader back = read(text + std::string(13, 'x'));
  EXPECT_EQ(back.tensors.size(), 3u);
  EXPECT_EQ(back.tensors[0].offset, text.size());
  EXPECT_EQ(safetensors_header_text({}).size() % 8, 0u);
}

TEST_F(Safetensors, ReadingIntoAShrunkFileIsAnError) {
  write_file(file_, std::string(100, 'x'));
  const InputFile file(file_);
  std::vector<std::byte> bytes(60);
  file.read(40, bytes);
  EXPECT_EQ(bytes.back(), std::byte{'x'});
  ASSERT_EQ(truncate(file_.c_str(), 50), 0);
  expect_error(ExitCode::io, {"x.safetensors", "offset 50", "shrunk"}, [&] { file.read(40, bytes); });
}

}  // namespace
}  // namespace reap
