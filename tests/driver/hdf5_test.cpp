#include "driver/hdf5.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <limits>
#include <numeric>
#include <thread>

#include "driver/expect_error.hpp"
#include "driver/temporary_directory.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

const fs::path kFixtures = fs::path(REAP_TEST_DATA) / "hdf5";

const std::vector<std::int64_t> kWide{std::numeric_limits<std::int64_t>::min(), -1, 0, 1, 2,
                                      std::numeric_limits<std::int64_t>::max()};

Hdf5Writer small_file() {
  Hdf5Writer writer;
  writer.attribute("schema", std::string("test"));
  writer.attribute("names", std::vector<std::string>{"a", "", "päper"});
  writer.attribute("wide", std::numeric_limits<std::int64_t>::min());
  writer.group("/fields");
  writer.group("/fields/norm");
  writer.dataset<std::int64_t>("/fields/norm/digits", {2, 3}, kWide);
  writer.dataset<float>("/max_abs", {1}, std::vector<float>{0.1f});
  writer.dataset<double>("/sum", {1}, std::vector<double>{0.1});
  writer.dataset<std::uint8_t>("/domain", {2}, std::vector<std::uint8_t>{0, 255});
  writer.dataset<std::int32_t>("/tokens", {4}, std::vector<std::int32_t>{7, 8, 9, -10});
  writer.dataset<std::int32_t>("/none", {0}, {});
  return writer;
}

TEST(Hdf5, ReadsBackWhatItWrote) {
  const TemporaryDirectory directory;
  small_file().save(directory / "f.h5");
  const Hdf5Reader reader(directory / "f.h5");
  EXPECT_EQ(reader.text("schema"), "test");
  EXPECT_EQ(reader.texts("names"), (std::vector<std::string>{"a", "", "päper"}));
  EXPECT_EQ(reader.integer("wide"), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(reader.extents<std::int64_t>("/fields/norm/digits", 2), (Extents{2, 3}));
  EXPECT_EQ(reader.read<std::int64_t>("/fields/norm/digits", {2, 3}), kWide);
  EXPECT_EQ(reader.read<float>("/max_abs", {1}), std::vector<float>{0.1f});
  EXPECT_EQ(reader.read<double>("/sum", {1}), std::vector<double>{0.1});
  EXPECT_EQ(reader.read<std::uint8_t>("/domain", {2}), (std::vector<std::uint8_t>{0, 255}));
  EXPECT_TRUE(reader.read<std::int32_t>("/none", {0}).empty());
  std::vector<std::int32_t> middle(2);
  reader.read_range<std::int32_t>("/tokens", 1, middle);
  EXPECT_EQ(middle, (std::vector<std::int32_t>{8, 9}));
}

TEST(Hdf5, ReadsSlices) {
  const TemporaryDirectory directory;
  Hdf5Writer writer;
  std::vector<std::int64_t> values(2 * 3 * 4);
  std::iota(values.begin(), values.end(), 0);
  writer.dataset<std::int64_t>("/box", {2, 3, 4}, values);
  writer.save(directory / "a.h5");
  const Hdf5Reader reader(directory / "a.h5");
  using Row = std::vector<std::int64_t>;
  EXPECT_EQ(reader.read_slice<std::int64_t>("/box", {2, 3, 4}, {1, 2}), (Row{20, 21, 22, 23}));
  EXPECT_EQ(reader.read_slice<std::int64_t>("/box", {2, 3, 4}, {1, 0, 3}), Row{15});
  EXPECT_EQ(reader.read_slice<std::int64_t>("/box", {2, 3, 4}, {1}), Row(values.begin() + 12, values.end()));
  EXPECT_EQ(reader.read_slice<std::int64_t>("/box", {2, 3, 4}, {}), values);
  expect_error(ExitCode::bad_input, {"/box", "[2, 3, 4]", "[2, 3, 5]"}, [&] {
    reader.read_slice<std::int64_t>("/box", {2, 3, 5}, {1});
  });
  expect_error(ExitCode::bug, {"/box"}, [&] { reader.read_slice<std::int64_t>("/box", {2, 3, 4}, {0, 3}); });
}

TEST(Hdf5, SaysWhatThereIs) {
  const TemporaryDirectory directory;
  small_file().save(directory / "f.h5");
  const Hdf5Reader reader(directory / "f.h5");
  EXPECT_TRUE(reader.has("/fields/norm/digits"));
  EXPECT_TRUE(reader.has("/fields"));
  EXPECT_FALSE(reader.has("/fields/gate/digits"));
  EXPECT_FALSE(reader.has("/tokens/inner"));
  EXPECT_TRUE(reader.has_attribute("wide"));
  EXPECT_FALSE(reader.has_attribute("narrow"));
}

TEST(Hdf5, EqualContentGivesEqualBytes) {
  const TemporaryDirectory directory;
  small_file().save(directory / "a.h5");
  timespec pause{1, 100'000'000};  // a time stamp would be of another second
  nanosleep(&pause, nullptr);
  std::thread([&] { small_file().save(directory / "b.h5"); }).join();
  const std::string bytes = read_text(directory / "a.h5");
  EXPECT_EQ(bytes, read_text(directory / "b.h5"));
  small_file().save(directory / "a.h5");
  EXPECT_EQ(bytes, read_text(directory / "a.h5"));
  EXPECT_EQ(directory.entries(), 2);
}

TEST(Hdf5, RefusesWrongTypesRanksAndExtents) {
  const TemporaryDirectory directory;
  small_file().save(directory / "f.h5");
  const Hdf5Reader reader(directory / "f.h5");
  expect_error(ExitCode::bad_input, {"f.h5", "/absent"}, [&] { reader.extents<float>("/absent", 1); });
  expect_error(ExitCode::bad_input, {"/tokens", "int32", "int64"}, [&] { reader.extents<std::int64_t>("/tokens", 1); });
  expect_error(ExitCode::bad_input, {"/sum", "float64", "float32"}, [&] { reader.extents<float>("/sum", 1); });
  expect_error(ExitCode::bad_input, {"/tokens", "dimensions"}, [&] { reader.extents<std::int32_t>("/tokens", 2); });
  expect_error(ExitCode::bad_input, {"[4]", "[5]"}, [&] { reader.read<std::int32_t>("/tokens", {5}); });
  expect_error(ExitCode::bad_input, {"/fields"}, [&] { reader.extents<std::int32_t>("/fields", 1); });
  std::vector<std::int32_t> two(2);
  expect_error(ExitCode::bug, {"/tokens"}, [&] { reader.read_range<std::int32_t>("/tokens", 3, two); });
  expect_error(ExitCode::bug, {"/tokens"}, [&] { reader.read_range<std::int32_t>("/tokens", -1, two); });
}

TEST(Hdf5, ReadsAttributesAsOthersWriteThem) {
  const Hdf5Reader reader(kFixtures / "attributes.h5");
  EXPECT_EQ(reader.text("variable"), "päper");
  EXPECT_EQ(reader.texts("variable_array"), (std::vector<std::string>{"one", "", "three"}));
  EXPECT_EQ(reader.text("fixed"), "fixed");
  EXPECT_EQ(reader.texts("fixed_array"), (std::vector<std::string>{"a", "bcd"}));
  EXPECT_EQ(reader.text("space_padded"), "padded");
  EXPECT_TRUE(reader.texts("empty").empty());
  EXPECT_EQ(reader.integer("int16"), -7);
  EXPECT_EQ(reader.integer("one_element"), 9);
  expect_error(ExitCode::bad_input, {"absent"}, [&] { reader.text("absent"); });
  expect_error(ExitCode::bad_input, {"variable_array"}, [&] { reader.text("variable_array"); });
  expect_error(ExitCode::bad_input, {"empty"}, [&] { reader.text("empty"); });
  expect_error(ExitCode::bad_input, {"int16", "expected text"}, [&] { reader.text("int16"); });
  expect_error(ExitCode::bad_input, {"two_elements"}, [&] { reader.integer("two_elements"); });
  expect_error(ExitCode::bad_input, {"float"}, [&] { reader.integer("float"); });
  expect_error(ExitCode::bad_input, {"fixed"}, [&] { reader.integer("fixed"); });
}

TEST(Hdf5, RefusesDataThatAreNotInTheFile) {
  const Hdf5Reader reader(kFixtures / "elsewhere.h5");
  for (const char* name : {"/external", "/virtual", "/outside", "/soft", "/unwritten", "/unwritten_chunks", "/bomb",
                           "/huge_chunk", "/scalar", "/null", "/text", "/compound"}) {
    expect_error(ExitCode::bad_input, {"elsewhere.h5", name}, [&] { reader.extents<std::int32_t>(name, 1); });
  }
  EXPECT_EQ(reader.extents<std::int32_t>("/group/inner", 1), Extents{12});
  EXPECT_EQ(reader.extents<std::int32_t>("/empty", 1), Extents{0});
}

TEST(Hdf5, RefusesWhatIsNotAFile) {
  const TemporaryDirectory directory;
  expect_error(ExitCode::bad_input, {"absent.h5"}, [&] { Hdf5Reader(directory / "absent.h5"); });
  expect_error(ExitCode::bad_input, {}, [&] { Hdf5Reader(fs::path(REAP_TEST_DATA)); });
  ASSERT_EQ(mkfifo((directory / "fifo").c_str(), 0600), 0);
  expect_error(ExitCode::bad_input, {"fifo"}, [&] { Hdf5Reader(directory / "fifo"); });
  write_text(directory / "empty.h5", "");
  expect_error(ExitCode::bad_input, {"empty.h5"}, [&] { Hdf5Reader(directory / "empty.h5"); });
  write_text(directory / "text.h5", "not HDF5 at all");
  expect_error(ExitCode::bad_input, {"text.h5"}, [&] { Hdf5Reader(directory / "text.h5"); });
}

/// Reads everything small_file() holds; the only exception that may come out is Error.
void read_everything(const fs::path& file) {
  try {
    const Hdf5Reader reader(file);
    reader.text("schema");
    reader.texts("names");
    reader.integer("wide");
    reader.read<std::int64_t>("/fields/norm/digits", reader.extents<std::int64_t>("/fields/norm/digits", 2));
    reader.read<float>("/max_abs", reader.extents<float>("/max_abs", 1));
    reader.read<std::int32_t>("/tokens", reader.extents<std::int32_t>("/tokens", 1));
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == ExitCode::bad_input || error.code() == ExitCode::io) << error.what();
  }
}

TEST(Hdf5, EveryTruncationIsAnError) {
  const TemporaryDirectory directory;
  small_file().save(directory / "whole.h5");
  const std::string bytes = read_text(directory / "whole.h5");
  for (std::size_t size = 0; size < bytes.size(); size += 97) {
    write_text(directory / "cut.h5", std::string_view(bytes).substr(0, size));
    expect_error(ExitCode::bad_input, {"cut.h5"}, [&] { Hdf5Reader(directory / "cut.h5"); });
  }
}

TEST(Hdf5, DamagedBytesNeverCrash) {
  const TemporaryDirectory directory;
  small_file().save(directory / "whole.h5");
  const std::string bytes = read_text(directory / "whole.h5");
  const std::string masks = "\x01\x80\xff";
  for (std::size_t i = 0; i < bytes.size(); i += 5) {  // all of them, with all masks, takes a minute
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ masks[i % masks.size()]);
    write_text(directory / "damaged.h5", damaged);
    read_everything(directory / "damaged.h5");
  }
}

TEST(Hdf5, FullDiskLeavesTheOldFile) {
  const TemporaryDirectory directory;
  small_file().save(directory / "f.h5");
  const std::string old = read_text(directory / "f.h5");

  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small{1000, limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error(ExitCode::io, {"f.h5"}, [&] { small_file().save(directory / "f.h5"); });
  expect_error(ExitCode::io, {"new.h5"}, [&] { small_file().save(directory / "new.h5"); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, previous);

  EXPECT_EQ(read_text(directory / "f.h5"), old);
  EXPECT_EQ(directory.entries(), 1);
}

}  // namespace
}  // namespace reap
