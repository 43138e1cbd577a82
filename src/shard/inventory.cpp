#include "shard/inventory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "kernels/check.hpp"
#include "kernels/round_up.hpp"
#include "shard/family.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxConfigBytes = 16'000'000;
constexpr std::uint64_t kMaxIndexBytes = 200'000'000;

bool is_router(Part part) { return part == Part::gate || part == Part::gate_bias; }

bool is_expert(Part part) { return part == Part::w1 || part == Part::w3 || part == Part::w2; }

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

/// Sizes that a config.json may hold one by one, but that no model has: their products have to stay below 2^63.
void check_size(const std::vector<TensorKind>& kinds) {
  constexpr double kMostParameters = 1e15;
  double parameters = 0;
  for (const TensorKind& kind : kinds) {
    double size = static_cast<double>(kind.count);
    for (const std::int64_t extent : kind.shape) size *= static_cast<double>(extent);
    parameters += size;
  }
  if (parameters > kMostParameters) {
    fail(ExitCode::bad_input, "config.json describes a model of {:.2g} parameters; look for a wrong size in it",
         parameters);
  }
}

Json read_json(const fs::path& file, std::uint64_t limit) {
  return parse_json(InputFile(file).read_text(limit), file.string());
}

/// What model.safetensors.index.json says without the files that it names.
struct Index {
  std::set<std::string> files;
  std::int64_t tensors = 0, mtp_tensors = 0;
  std::int64_t total_bytes = 0;  // 0 = not said
  bool fp8 = false;
};

Index read_index(const fs::path& file, const Model& model) {
  const Json json = read_json(file, kMaxIndexBytes);
  const auto weights = json.is_object() ? json.find("weight_map") : json.end();
  if (weights == json.end() || !weights->is_object())
    fail(ExitCode::bad_input, "{}: no object \"weight_map\"", file.string());
  Index index;
  for (const auto& [name, value] : weights->get_ref<const Json::object_t&>()) {
    if (!value.is_string())
      fail(ExitCode::bad_input, "{}: tensor {}: not the name of a file", file.string(), shown(name));
    index.files.insert(value.get<std::string>());
    const ParsedName parsed = parse_tensor_name(name);
    index.fp8 = index.fp8 || parsed.scale;
    ++index.tensors;
    if (parsed.layer >= model.layers) ++index.mtp_tensors;
  }
  const auto metadata = json.find("metadata");
  if (metadata != json.end() && metadata->is_object()) {
    const auto total = metadata->find("total_size");
    if (total != metadata->end() && total->is_number_integer()) index.total_bytes = total->get<std::int64_t>();
  }
  return index;
}

bool is_there(const fs::path& file) {
  std::error_code error;
  return fs::exists(file, error);
}

ModelFolder from_headers(const fs::path& directory) {
  const Checkpoint checkpoint(directory);
  ModelFolder folder;
  folder.model = describe_model(checkpoint);
  folder.inventory = count_tensors(checkpoint, folder.model, claim_tensors(checkpoint, folder.model));
  folder.from_headers = true;
  return folder;
}

}  // namespace

std::int64_t parameters_of(const Tensor& tensor, const Claim& claim) {
  if (claim.scale) return 0;
  if (claim.piece == W4Piece::words) return kNibbles * elements(tensor.shape);
  return claim.piece == W4Piece::none ? elements(tensor.shape) : 0;
}

Stock& Stock::operator+=(const Stock& other) {
  tensors += other.tensors;
  parameters += other.parameters;
  bytes += other.bytes;
  return *this;
}

Stock operator*(std::int64_t count, const Stock& stock) {
  return {count * stock.tensors, count * stock.parameters, count * stock.bytes};
}

Stock Inventory::left(std::int64_t kept) const {
  Stock stock = fixed;
  return stock += kept * expert;
}

Stock Inventory::whole() const {
  Stock stock = left(experts);
  return stock += mtp;
}

Inventory count_tensors(const Checkpoint& checkpoint, const Model& model, const std::vector<Claim>& claims) {
  Inventory inventory;
  inventory.experts = model.router.experts;
  Stock experts;
  for (std::size_t i = 0; i < claims.size(); ++i) {
    const Tensor& tensor = checkpoint.tensors()[i];
    Stock stock{1, parameters_of(tensor, claims[i]), static_cast<std::int64_t>(tensor.bytes)};
    if (claims[i].part == Part::mtp) {
      inventory.mtp += stock;
    } else if (is_expert(claims[i].part)) {
      experts += stock;
    } else if (is_router(claims[i].part)) {
      inventory.fixed.tensors += 1;
      experts += {0, stock.parameters, stock.bytes};
    } else {
      inventory.fixed += stock;
    }
  }
  inventory.expert = {experts.tensors / inventory.experts, experts.parameters / inventory.experts,
                      experts.bytes / inventory.experts};
  return inventory;
}

Inventory count_tensors(const Model& model) {
  Inventory inventory;
  inventory.experts = model.router.experts;
  const std::vector<TensorKind> kinds = tensor_kinds(model);
  check_size(kinds);
  for (const TensorKind& kind : kinds) {
    const std::int64_t size = elements(kind.shape);
    Stock one{1, size, size * model.embedding_element_bytes};
    if (kind.may_be_fp8) one.bytes = size * model.weight_element_bytes;
    if (kind.may_be_fp8 && model.fp8) {
      one.tensors = 2;
      one.bytes = size + 4 * ceil_div(kind.shape[0], kScaleBlock) * ceil_div(kind.shape[1], kScaleBlock);
    }
    if (is_expert(kind.part)) {
      inventory.expert += kind.count / inventory.experts * one;
    } else if (is_router(kind.part)) {
      inventory.fixed.tensors += kind.count;
      const std::int64_t row = kind.count * size / inventory.experts;
      inventory.expert += {0, row, 4 * row};
    } else {
      inventory.fixed += kind.count * one;
    }
  }
  return inventory;
}

ModelFolder open_model_folder(const fs::path& directory) {
  const fs::path config = directory / "config.json";
  const fs::path index_file = directory / "model.safetensors.index.json";
  if (!is_there(index_file) && is_there(directory / "model.safetensors")) return from_headers(directory);

  ModelFolder folder;
  folder.model = describe_config(read_json(config, kMaxConfigBytes), config.string());
  folder.model.mtp_layers = 0;
  if (!is_there(index_file)) {
    folder.inventory = count_tensors(folder.model);
    folder.note = "sizes follow from config.json: no file of the model is here";
    return folder;
  }
  const Index index = read_index(index_file, folder.model);
  const auto missing = std::count_if(index.files.begin(), index.files.end(),
                                     [&](const std::string& name) { return !is_there(directory / name); });
  if (missing == 0) return from_headers(directory);

  folder.model.fp8 = index.fp8;
  if (index.fp8) folder.model.weight_element_bytes = 1;
  folder.inventory = count_tensors(folder.model);
  folder.inventory.mtp.tensors = index.mtp_tensors;
  const Stock counted = folder.inventory.whole();
  folder.note = fmt::format("sizes follow from config.json: {} of the {} files that the index names are not here",
                            missing, index.files.size());
  if (counted.tensors != index.tensors) {
    folder.note +=
        fmt::format("; the index names {} tensors, config.json describes {}", index.tensors, counted.tensors);
  }
  if (index.mtp_tensors > 0 && index.total_bytes > counted.bytes) {
    folder.inventory.mtp.bytes = index.total_bytes - counted.bytes;
  } else if (index.total_bytes > 0 && index.total_bytes != counted.bytes) {
    folder.note += fmt::format("; the index says {} bytes, counted are {}", index.total_bytes, counted.bytes);
  }
  return folder;
}

}  // namespace reap
