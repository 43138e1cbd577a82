#include "driver/file_writer.hpp"

#include <gtest/gtest.h>

#include <string>

#include "driver/expect_error.hpp"
#include "driver/size_limit.hpp"
#include "driver/temporary_directory.hpp"

namespace reap {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

TEST(FileWriter, AppendsInOrder) {
  const TemporaryDirectory directory;
  const std::string first(100'000, 'a');
  const std::string second = "b\0c";
  FileWriter writer(directory / "f", first.size() + second.size());
  writer.append(bytes_of(first));
  writer.append({});
  writer.append(bytes_of(second));
  writer.finish();
  EXPECT_EQ(read_text(directory / "f"), first + second);
}

TEST(FileWriter, MakesAnEmptyFile) {
  const TemporaryDirectory directory;
  FileWriter(directory / "f", 0).finish();
  EXPECT_EQ(std::filesystem::file_size(directory / "f"), 0u);
}

TEST(FileWriter, RefusesAFileThatIsThere) {
  const TemporaryDirectory directory;
  write_text(directory / "f", "old");
  expect_error(ExitCode::io, {(directory / "f").string(), "exists"}, [&] { FileWriter(directory / "f", 3); });
  EXPECT_EQ(read_text(directory / "f"), "old");
}

TEST(FileWriter, NamesTheDirectoryThatIsMissing) {
  const TemporaryDirectory directory;
  expect_error(ExitCode::io, {(directory / "no" / "f").string(), "No such file"},
               [&] { FileWriter(directory / "no" / "f", 3); });
}

TEST(FileWriter, MoreOrLessThanAnnouncedIsABug) {
  const TemporaryDirectory directory;
  FileWriter writer(directory / "f", 4);
  expect_error(ExitCode::bug, {"file of 4"}, [&] { writer.append(bytes_of("12345")); });
  writer.append(bytes_of("123"));
  expect_error(ExitCode::bug, {"3 of 4"}, [&] { writer.finish(); });
}

TEST(FileWriter, SaysWhenThereIsNoSpace) {
  const TemporaryDirectory directory;
  const SizeLimit limit(1000);
  expect_error(ExitCode::io, {(directory / "f").string(), "reserve its space", "free space"},
               [&] { FileWriter(directory / "f", 2000); });
}

TEST(FileWriter, SaysWhereWritingFailed) {
  const TemporaryDirectory directory;
  FileWriter writer(directory / "f", 2000);  // space is reserved; the limit comes later, as a quota may
  const SizeLimit limit(1000);
  const std::string text(2000, 'x');  // the first 1000 bytes still go: a short write
  expect_error(ExitCode::io, {(directory / "f").string(), "cannot write at offset 1000"},
               [&] { writer.append(bytes_of(text)); });
}

}  // namespace
}  // namespace reap
