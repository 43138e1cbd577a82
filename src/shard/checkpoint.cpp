#include "shard/checkpoint.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/check.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kConfigName = "config.json";
constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kSuffix = ".safetensors";
constexpr std::uint64_t kMaxConfigBytes = 16'000'000;
constexpr std::uint64_t kMaxIndexBytes = 200'000'000;
constexpr std::size_t kReaders = 8;  // opening a file on a cluster's file system is a round trip or more; overlap them

// The real directory, so that links can be told to stay inside it.
fs::path real_directory(const fs::path& directory) {
  std::error_code error;
  fs::path real = fs::canonical(directory, error);
  if (error) fail(ExitCode::bad_input, "model directory {}: {}", directory.string(), error.message());
  if (!fs::is_directory(real, error)) fail(ExitCode::bad_input, "model {}: not a directory", directory.string());
  return real;
}

// The path to open for `name`, after following links. Never one outside the directory.
fs::path resolve(const fs::path& directory, const fs::path& real, const std::string& name) {
  std::error_code error;
  const fs::path target = fs::canonical(real / name, error);
  if (error) fail(ExitCode::bad_input, "{}: {}", (directory / name).string(), error.message());
  const auto [end_of_real, unused] = std::mismatch(real.begin(), real.end(), target.begin(), target.end());
  if (end_of_real != real.end()) {
    fail(ExitCode::bad_input,
         "{} is a link that leads out of the model directory, to {}; give a directory that holds the files themselves: "
         "copy "
         "it with `cp -rL`, or download with `hf download --local-dir`",
         (directory / name).string(), target.string());
  }
  return directory / name;
}

// A name that an index may give a file: relative, in normal form, not leaving the directory.
void check_file_name(const std::string& index, const std::string& tensor, const std::string& name) {
  const fs::path path(name);
  const bool plain = !name.empty() && name.find('\0') == std::string::npos && path.is_relative() &&
                     path.lexically_normal().string() == name && *path.begin() != ".." && path.filename() != ".";
  if (!plain || !name.ends_with(kSuffix)) {
    fail(ExitCode::bad_input, "{}: tensor {} is said to lie in {}: not a .safetensors file inside the model directory",
         index, shown(tensor), shown(name));
  }
}

// Which file each tensor lies in, as the index says.
using WeightMap = std::unordered_map<std::string, std::string>;

WeightMap read_index(const std::string& path, const std::string& text) {
  const Json index = parse_json(text, path);
  const auto weights = index.is_object() ? index.find("weight_map") : index.end();
  if (weights == index.end() || !weights->is_object()) fail(ExitCode::bad_input, "{}: no object \"weight_map\"", path);
  WeightMap map;
  map.reserve(weights->size());
  for (const auto& [tensor, file] : weights->get_ref<const Json::object_t&>()) {
    if (!file.is_string()) fail(ExitCode::bad_input, "{}: tensor {}: not the name of a file", path, shown(tensor));
    map.emplace(tensor, file.get<std::string>());
  }
  return map;
}

// Runs work(0) ... work(count - 1) on a few threads. Of several errors the one of the lowest item is thrown, here,
// so that it is the same in every run and carries the scopes of this thread.
template <class Work>
void for_each_file(std::size_t count, const Work& work) {
  std::vector<std::optional<Error>> errors(count);
  std::atomic<std::size_t> next = 0;
  const auto run = [&] {
    for (std::size_t i = next++; i < count; i = next++) {
      try {
        work(i);
      } catch (const Error& error) {
        errors[i] = error;
      } catch (const std::exception& error) {  // out of memory
        errors[i] = Error(ExitCode::io, error.what());
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < std::min(count, kReaders); ++i) threads.emplace_back(run);
  }
  for (const std::optional<Error>& error : errors) {
    if (error) throw Error(error->code(), error->what());
  }
}

}  // namespace

struct Checkpoint::Impl {
  fs::path directory, real;
  std::string config_text;
  Json config;
  std::string index_path;  // empty for a single file
  std::vector<std::string> names;
  std::vector<InputFile> files;
  std::vector<Tensor> tensors;
  std::unordered_map<std::string_view, std::size_t> by_name;  // keys point into tensors

  explicit Impl(const fs::path& path) : directory{path}, real{real_directory(path)} {
    config_text = open(std::string(kConfigName)).read_text(kMaxConfigBytes);
    config = parse_json(config_text, (directory / kConfigName).string());
    if (!config.is_object()) fail(ExitCode::bad_input, "{}: not a JSON object", (directory / kConfigName).string());
    const WeightMap weights = read_names();
    open_files();
    read_headers();
    check_against_index(weights);
  }

  InputFile open(const std::string& name) const { return InputFile(resolve(directory, real, name)); }

  bool has(std::string_view name) const {
    std::error_code error;
    return fs::exists(fs::symlink_status(directory / name, error));
  }

  WeightMap read_names() {
    if (!has(kIndexName)) {
      if (!has(kSingleName)) {
        fail(ExitCode::bad_input, "{}: neither {} nor {}", directory.string(), kIndexName, kSingleName);
      }
      names = {std::string(kSingleName)};
      return {};
    }
    index_path = (directory / kIndexName).string();
    WeightMap weights = read_index(index_path, open(std::string(kIndexName)).read_text(kMaxIndexBytes));
    std::map<std::string_view, std::string_view> first_tensor_of;
    for (const auto& [tensor, file] : weights) first_tensor_of.emplace(file, tensor);
    for (const auto& [file, tensor] : first_tensor_of) {
      check_file_name(index_path, std::string(tensor), std::string(file));
      names.emplace_back(file);
    }
    if (has(kSingleName) && !std::binary_search(names.begin(), names.end(), kSingleName)) {
      fail(ExitCode::bad_input,
           "{}: holds both {} and a {} that does not name it; readers would disagree which one is the model",
           directory.string(), kSingleName, kIndexName);
    }
    return weights;
  }

  void open_files() {
    std::vector<std::optional<InputFile>> opened(names.size());
    for_each_file(names.size(), [&](std::size_t i) { opened[i].emplace(open(names[i])); });
    std::map<std::pair<std::uint64_t, std::uint64_t>, std::string_view> seen;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const auto [other, is_new] = seen.emplace(opened[i]->identity(), names[i]);
      if (!is_new) fail(ExitCode::bad_input, "{}: {} and {} are the same file", index_path, other->second, names[i]);
      files.push_back(std::move(*opened[i]));
    }
  }

  void read_headers() {
    std::vector<SafetensorsHeader> headers(files.size());
    for_each_file(files.size(), [&](std::size_t i) { headers[i] = read_safetensors_header(files[i]); });
    std::size_t count = 0;
    for (const SafetensorsHeader& header : headers) count += header.tensors.size();
    tensors.reserve(count);
    for (std::size_t i = 0; i < headers.size(); ++i) {
      for (TensorInfo& tensor : headers[i].tensors) {
        tensors.push_back({std::move(tensor), static_cast<std::int32_t>(i)});
      }
    }
    by_name.reserve(count);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const auto [other, is_new] = by_name.emplace(tensors[i].name, i);
      if (!is_new) {
        fail(ExitCode::bad_input, "{}: tensor {} also lies in {}", files[tensors[i].file].path(),
             shown(tensors[i].name), names[tensors[other->second].file]);
      }
    }
  }

  void check_against_index(const WeightMap& weights) const {
    if (index_path.empty()) return;
    for (const Tensor& tensor : tensors) {
      const auto entry = weights.find(tensor.name);
      if (entry != weights.end() && entry->second == names[tensor.file]) continue;
      fail(ExitCode::bad_input, "{}: tensor {} at offset {}: the index {}", files[tensor.file].path(),
           shown(tensor.name), tensor.offset,
           entry == weights.end() ? "does not list it" : "says that it lies in " + shown(entry->second));
    }
    if (weights.size() == tensors.size()) return;
    std::set<std::string_view> absent;  // ordered, so that the message is the same in every run
    for (const auto& [tensor, file] : weights) {
      if (!by_name.contains(tensor)) absent.insert(tensor);
    }
    const std::string first(*absent.begin());
    fail(ExitCode::bad_input, "{}: tensor {} is not in {}, where the index says it lies ({} such tensors)", index_path,
         shown(first), shown(weights.at(first)), absent.size());
  }
};

Checkpoint::Checkpoint(const fs::path& directory) : impl_{std::make_unique<Impl>(directory)} {}
Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;

const fs::path& Checkpoint::directory() const { return impl_->directory; }
const std::string& Checkpoint::config_text() const { return impl_->config_text; }
const Json& Checkpoint::config() const { return impl_->config; }
const std::vector<std::string>& Checkpoint::files() const { return impl_->names; }
const std::vector<Tensor>& Checkpoint::tensors() const { return impl_->tensors; }

const Tensor* Checkpoint::find(std::string_view name) const {
  const auto entry = impl_->by_name.find(name);
  return entry == impl_->by_name.end() ? nullptr : &impl_->tensors[entry->second];
}

const Tensor& Checkpoint::at(std::string_view name) const {
  const Tensor* tensor = find(name);
  if (tensor == nullptr) fail(ExitCode::bad_input, "{}: tensor {} is missing", directory().string(), shown(name));
  return *tensor;
}

void Checkpoint::read(const Tensor& tensor, std::uint64_t begin, std::span<std::byte> into) const {
  REAP_CHECK(begin <= tensor.bytes && into.size() <= tensor.bytes - begin, "tensor {}: reading [{}, +{}) of {} bytes",
             shown(tensor.name), begin, into.size(), tensor.bytes);
  impl_->files[tensor.file].read(tensor.offset + begin, into);
}

std::vector<std::byte> Checkpoint::read(const Tensor& tensor) const {
  std::vector<std::byte> data(tensor.bytes);
  read(tensor, 0, data);
  return data;
}

std::vector<std::string> Checkpoint::side_files() const {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(impl_->real, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name == kConfigName || name == kIndexName || name.ends_with(kSuffix)) continue;
    if (fs::is_directory(entry->path())) continue;
    if (fs::is_regular_file(resolve(impl_->directory, impl_->real, name))) names.push_back(name);
  }
  if (error) fail(ExitCode::io, "{}: cannot be listed: {}", impl_->directory.string(), error.message());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace reap
