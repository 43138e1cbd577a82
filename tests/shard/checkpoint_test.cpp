#include "shard/checkpoint.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <thread>

#include "shard/checkpoint_files.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() { fs::create_directory(model_); }

  void write(const std::string& name, std::string_view bytes) { write_file(model_ / name, bytes); }
  /// A file with one tensor of four bytes.
  void write_tensor(const std::string& file, const std::string& name, std::string_view data = "1234") {
    write(file, safetensors("{" + bytes_tensor(name) + "}", data));
  }
  void write_index(const std::string& weight_map) {
    write("model.safetensors.index.json", R"({"metadata":{"total_size":1},"weight_map":{)" + weight_map + "}}");
  }
  /// Two tensors in two files of odd names, one of them in a subdirectory.
  void write_model() {
    write("config.json", "{\"a\": 1 }\n");
    fs::create_directory(model_ / "sub");
    write_tensor("part-b.safetensors", "one", "1111");
    write_tensor("sub/model-00007-of-00003.safetensors", "two", "2222");
    write_index(R"("two":"sub/model-00007-of-00003.safetensors","one":"part-b.safetensors")");
  }
  void expect_refused(std::initializer_list<std::string_view> words) {
    expect_error(ExitCode::bad_input, words, [&] { Checkpoint{model_}; });
  }

  TemporaryDirectory directory_;
  fs::path model_ = directory_.path() / "model";
};

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_F(CheckpointTest, OpensShardsOfAnyName) {
  write_model();
  const Checkpoint checkpoint(model_);
  EXPECT_EQ(checkpoint.directory(), model_);
  EXPECT_EQ(checkpoint.config_text(), "{\"a\": 1 }\n");
  EXPECT_EQ(checkpoint.config()["a"], 1);
  EXPECT_EQ(checkpoint.files(),
            (std::vector<std::string>{"part-b.safetensors", "sub/model-00007-of-00003.safetensors"}));
  ASSERT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_EQ(checkpoint.tensors()[1].name, "two");
  EXPECT_EQ(checkpoint.tensors()[1].file, 1);
  EXPECT_EQ(checkpoint.find("one"), &checkpoint.tensors()[0]);
  EXPECT_EQ(checkpoint.find("three"), nullptr);
  expect_error(ExitCode::bad_input, {"\"three\" is missing"}, [&] { checkpoint.at("three"); });
  EXPECT_EQ(text_of(checkpoint.read(checkpoint.at("two"))), "2222");
}

TEST_F(CheckpointTest, OpensASingleFile) {
  write("config.json", "{}");
  write_tensor("model.safetensors", "t", "abcd");
  Checkpoint first(model_);
  const Checkpoint checkpoint(std::move(first));
  EXPECT_EQ(checkpoint.files(), std::vector<std::string>{"model.safetensors"});
  std::vector<std::byte> middle(2);
  checkpoint.read(checkpoint.at("t"), 1, middle);
  EXPECT_EQ(text_of(middle), "bc");
  checkpoint.read(checkpoint.at("t"), 4, {});
  expect_error(ExitCode::bug, {"\"t\""}, [&] { checkpoint.read(checkpoint.at("t"), 3, middle); });
  write_index(R"("t":"model.safetensors")");  // an index that names the single file agrees with it
  EXPECT_EQ(Checkpoint(model_).tensors().size(), 1u);
}

TEST_F(CheckpointTest, FilesThatTheIndexDoesNotNameAreNoPartOfTheModel) {
  write_model();
  write_tensor("consolidated.safetensors", "one");
  write("broken.safetensors", "?");
  EXPECT_EQ(Checkpoint(model_).tensors().size(), 2u);
  EXPECT_TRUE(Checkpoint(model_).side_files().empty());
}

TEST_F(CheckpointTest, RefusesDirectoriesThatAreNoCheckpoint) {
  expect_error(ExitCode::bad_input, {"nowhere"}, [&] { Checkpoint{directory_.path() / "nowhere"}; });
  expect_refused({"config.json", "No such file"});
  write("config.json", "{}");
  expect_error(ExitCode::bad_input, {"not a directory"}, [&] { Checkpoint{model_ / "config.json"}; });
  expect_refused({"neither model.safetensors.index.json nor model.safetensors"});
  write_model();
  write("config.json", "[]");
  expect_refused({"config.json", "not a JSON object"});
  write("config.json", R"({"a":1,"a":1})");
  expect_refused({"config.json", "\"a\" appears twice"});
}

TEST_F(CheckpointTest, RefusesBothLayoutsAtOnce) {
  write_model();
  write_tensor("model.safetensors", "one");
  expect_refused({"holds both"});
}

TEST_F(CheckpointTest, RefusesBrokenIndexes) {
  write_model();
  const auto with_index = [&](std::string_view text, std::string_view word) {
    SCOPED_TRACE(text);
    write("model.safetensors.index.json", text);
    expect_refused({"model.safetensors.index.json", word});
  };
  with_index("{", "offset 1");
  with_index("[]", "weight_map");
  with_index("{}", "weight_map");
  with_index(R"({"weight_map":[]})", "weight_map");
  with_index(R"({"weight_map":{"one":1}})", "\"one\"");
  with_index(R"({"weight_map":{"one":"part-b.safetensors","\u006fne":"part-b.safetensors"}})", "\"one\" appears twice");
}

TEST_F(CheckpointTest, RefusesFilesOutsideTheDirectory) {
  write_model();
  write_file(directory_.path() / "out.safetensors", safetensors("{" + bytes_tensor("one") + "}", "1234"));
  for (const std::string name :
       {"../out.safetensors", "sub/../../out.safetensors", "./part-b.safetensors", "sub//x.safetensors",
        "sub/../part-b.safetensors", "", "..", "config.json", "part-b.safetensors/",
        "part-b.safetensors\\u0000.safetensors", "/etc/x.safetensors"}) {
    SCOPED_TRACE(name);
    write_index("\"one\":\"" + name + "\"");
    expect_refused({"index.json", "\"one\"", "not a .safetensors file inside"});
  }
  write_index("\"one\":\"" + (directory_.path() / "out.safetensors").string() + "\"");
  expect_refused({"index.json", "\"one\"", "not a .safetensors file inside"});
  write_index(R"("one":"absent.safetensors")");
  expect_refused({"absent.safetensors", "No such file"});
}

TEST_F(CheckpointTest, RefusesLinksThatLeadOut) {
  write_model();
  write_tensor("../out.safetensors", "one");
  fs::remove(model_ / "part-b.safetensors");
  fs::create_symlink("../out.safetensors", model_ / "part-b.safetensors");
  expect_refused({"part-b.safetensors", "leads out of the model directory", "hf download --local-dir"});
  // A directory whose name merely begins like the model's is outside, too.
  fs::create_directory(directory_.path() / "model-2");
  write_tensor("../model-2/out.safetensors", "one");
  fs::remove(model_ / "part-b.safetensors");
  fs::create_symlink("../model-2/out.safetensors", model_ / "part-b.safetensors");
  expect_refused({"leads out"});
}

TEST_F(CheckpointTest, RefusesLinkedDirectoriesThatLeadOut) {
  write_model();
  fs::rename(model_ / "sub", directory_.path() / "sub");
  fs::create_directory_symlink("../sub", model_ / "sub");
  expect_refused({"sub/model-00007-of-00003.safetensors", "leads out"});
}

// The layout of the hub's cache: snapshots/<revision>/ holds links into blobs/.
TEST_F(CheckpointTest, RefusesCacheSnapshotsSayingWhatToDo) {
  write_model();
  const fs::path snapshot = directory_.path() / "snapshots" / "main";
  fs::create_directories(snapshot);
  fs::create_symlink("../../model/config.json", snapshot / "config.json");
  expect_error(ExitCode::bad_input, {"config.json", "cp -rL", "hf download --local-dir"},
               [&] { Checkpoint{snapshot}; });
}

TEST_F(CheckpointTest, FollowsLinksThatStayInside) {
  write_model();
  fs::rename(model_ / "part-b.safetensors", model_ / "blob");
  fs::create_symlink("blob", model_ / "part-b.safetensors");
  fs::create_directory_symlink(model_, directory_.path() / "link-to-model");
  const Checkpoint checkpoint(directory_.path() / "link-to-model");
  EXPECT_EQ(text_of(checkpoint.read(checkpoint.at("one"))), "1111");
}

TEST_F(CheckpointTest, RefusesOneFileUnderTwoNames) {
  write_model();
  fs::create_hard_link(model_ / "part-b.safetensors", model_ / "part-c.safetensors");
  write_index(R"("one":"part-b.safetensors","two":"part-c.safetensors")");
  expect_refused({"part-b.safetensors and part-c.safetensors are the same file"});
}

TEST_F(CheckpointTest, IndexAndHeadersAgreeBothWays) {
  write_model();
  write_index(
      R"("two":"sub/model-00007-of-00003.safetensors","one":"part-b.safetensors","three":"part-b.safetensors")");
  expect_refused({"index.json", "\"three\"", "part-b.safetensors", "1 such"});
  write_index(R"("one":"sub/model-00007-of-00003.safetensors","two":"part-b.safetensors")");
  expect_refused({"part-b.safetensors", "\"one\" at offset", "says that it lies in \"sub/"});
  write_tensor("part-b.safetensors", "extra");
  write_index(R"("two":"sub/model-00007-of-00003.safetensors","one":"part-b.safetensors")");
  expect_refused({"part-b.safetensors", "\"extra\" at offset", "does not list it"});
  write_tensor("part-b.safetensors", "two");
  expect_refused({"sub/model-00007-of-00003.safetensors", "\"two\" also lies in part-b.safetensors"});
}

TEST_F(CheckpointTest, ErrorsOfAHeaderNameTheFile) {
  write_model();
  fs::resize_file(model_ / "part-b.safetensors", fs::file_size(model_ / "part-b.safetensors") - 1);
  expect_refused({"model/part-b.safetensors", "\"one\"", "[0, 4]"});
  const Scope scope("rank 3");
  expect_refused({"rank 3: /"});
}

TEST_F(CheckpointTest, ShrunkFilesAreReported) {
  write_model();
  const Checkpoint checkpoint(model_);
  const std::uint64_t middle = checkpoint.at("one").offset + 2;
  fs::resize_file(model_ / "part-b.safetensors", middle);
  expect_error(ExitCode::io, {"part-b.safetensors", fmt::format("offset {}", middle), "shrunk"},
               [&] { checkpoint.read(checkpoint.at("one")); });
}

TEST_F(CheckpointTest, SideFilesAreAllButTheModel) {
  write_model();
  for (const char* name : {"tokenizer.json", "LICENSE", "modeling.py", "z.safetensors", ".hidden"}) write(name, "x");
  fs::create_symlink("LICENSE", model_ / "COPYING");
  fs::create_directory_symlink("/", model_ / "root");
  ASSERT_EQ(mkfifo((model_ / "pipe").c_str(), 0600), 0);
  const Checkpoint checkpoint(model_);
  EXPECT_EQ(checkpoint.side_files(),
            (std::vector<std::string>{".hidden", "COPYING", "LICENSE", "modeling.py", "tokenizer.json"}));
  fs::create_symlink("/etc/passwd", model_ / "vocab.txt");
  expect_error(ExitCode::bad_input, {"vocab.txt", "leads out"}, [&] { checkpoint.side_files(); });
}

TEST_F(CheckpointTest, ReadsFromSeveralThreads) {
  write("config.json", "{}");
  std::string data(1 << 20, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 31 >> 3);
  write("model.safetensors", safetensors(R"({"t":{"dtype":"U8","shape":[1048576],"data_offsets":[0,1048576]}})", data));
  const Checkpoint checkpoint(model_);
  std::vector<std::string> got(4);
  {
    std::vector<std::jthread> threads;
    for (std::string& text : got) threads.emplace_back([&] { text = text_of(checkpoint.read(checkpoint.at("t"))); });
  }
  for (const std::string& text : got) EXPECT_EQ(text, data);
}

// Many files open in parallel; of several broken ones the first is reported, in every run.
TEST_F(CheckpointTest, TheFirstErrorOfManyFilesIsReported) {
  write("config.json", "{}");
  std::string map;
  for (int i = 0; i < 60; ++i) {
    const std::string file = fmt::format("f{:02}.safetensors", i);
    if (i >= 17)
      write(file, "broken");
    else
      write_tensor(file, std::to_string(i));
    map += fmt::format("{}\"{}\":\"{}\"", i == 0 ? "" : ",", i, file);
  }
  write_index(map);
  for (int run = 0; run < 10; ++run) expect_refused({"f17.safetensors", "too short"});
}

}  // namespace
}  // namespace reap
