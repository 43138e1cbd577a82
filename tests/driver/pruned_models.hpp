#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "driver/digest.hpp"
#include "driver/plan.hpp"
#include "driver/temporary_directory.hpp"
#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"
#include "shard/families.hpp"

namespace reap {

inline std::filesystem::path test_model(const std::string& name) {
  return std::filesystem::path(REAP_TEST_DATA) / name;
}

/// A checkpoint with what describes it.
struct OpenSource {
  explicit OpenSource(const std::filesystem::path& directory)
      : checkpoint(directory), model(describe_model(checkpoint)), claims(claim_tensors(checkpoint, model)) {}
  Checkpoint checkpoint;
  Model model;
  std::vector<Claim> claims;
};

/// A plan that keeps `kept` experts, other ones in every layer.
inline Plan shuffled_plan(const OpenSource& source, std::int64_t kept) {
  Plan plan;
  plan.request.ratio = 0.25;
  plan.model_digest = model_digest(source.checkpoint);
  plan.model_type = source.model.type;
  plan.calibration_digest = "0123456789abcdef0123456789abcdef";
  plan.experts = source.model.router.experts;
  plan.kept = kept;
  plan.top_k = source.model.router.top_k;
  std::mt19937 random(7);
  for (std::int64_t layer = 0; layer < source.model.layers; ++layer) {
    std::vector<std::int32_t> experts(static_cast<std::size_t>(plan.experts));
    std::iota(experts.begin(), experts.end(), 0);
    std::shuffle(experts.begin(), experts.end(), random);
    experts.resize(static_cast<std::size_t>(kept));
    std::sort(experts.begin(), experts.end());
    LayerPlan& entry = plan.layers.emplace_back();
    entry.keep = experts;
    entry.score.assign(static_cast<std::size_t>(plan.experts), 1.0);
    entry.count.assign(static_cast<std::size_t>(plan.experts), 1);
  }
  return plan;
}

/// A tensor as it lies in a file.
struct StoredTensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
  bool operator==(const StoredTensor&) const = default;
};

using StoredTensors = std::map<std::string, StoredTensor>;

/// All tensors of one safetensors file: a reader of the tests' own, short and trusting.
inline StoredTensors read_tensors(const std::filesystem::path& file) {
  const std::string text = read_text(file);
  std::uint64_t length = 0;
  std::memcpy(&length, text.data(), sizeof length);
  const std::string data = text.substr(8 + length);
  StoredTensors tensors;
  const nlohmann::json header = nlohmann::json::parse(text.substr(8, length));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const auto begin = entry["data_offsets"][0].get<std::size_t>();
    const auto end = entry["data_offsets"][1].get<std::size_t>();
    tensors[name] = {entry["dtype"], entry["shape"], data.substr(begin, end - begin)};
  }
  return tensors;
}

/// All tensors of all safetensors files of a directory.
inline StoredTensors read_all_tensors(const std::filesystem::path& directory) {
  StoredTensors all;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() == ".safetensors") all.merge(read_tensors(entry.path()));
  }
  return all;
}

/// Every file of a directory by name, its bytes.
inline std::map<std::string, std::string> read_directory(const std::filesystem::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    files[entry.path().filename().string()] = read_text(entry.path());
  }
  return files;
}

/// A directory that all ranks of a test share; the last one to leave it finds it gone.
class SharedDirectory {
 public:
  explicit SharedDirectory(const Comm& world) : world_{world} {
    if (world.rank() == 0) own_ = std::make_unique<TemporaryDirectory>();
    path_ = world.all_broadcast(0, own_ ? (*own_ / "").string() : std::string());
  }
  ~SharedDirectory() { world_.all_barrier(); }
  SharedDirectory(const SharedDirectory&) = delete;
  SharedDirectory& operator=(const SharedDirectory&) = delete;

  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

  std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  const Comm& world_;
  std::unique_ptr<TemporaryDirectory> own_;
  std::filesystem::path path_;
};

}  // namespace reap
