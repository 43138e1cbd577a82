#include "driver/quantize_config.hpp"

#include <algorithm>
#include <array>

#include "kernels/check.hpp"
#include "shard/families.hpp"

namespace reap {
namespace {

constexpr const char* kAutoRoundVersion = "0.12.2";  // whose arithmetic and keys these are
constexpr std::array<Part, 4> kAttention{Part::q, Part::k, Part::v, Part::o};
constexpr std::array<Part, 3> kExpert{Part::w1, Part::w3, Part::w2};

std::string layer_of(const Model& model, Part part, std::int64_t layer, std::int64_t expert = -1) {
  const Claim claim{part, static_cast<std::int32_t>(layer), static_cast<std::int32_t>(expert)};
  return std::string(layer_name(tensor_name(model, claim)));
}

/// The linear layers within decoder layers that stay as they are.
struct Unquantised {
  std::vector<std::string> layers;  // by name, routers among them
  std::vector<std::string>
      fused;  // what engines that take q, k and v, or experts, together call them; regular expressions
};

bool stays(const QuantizeOptions& options, Part part, const std::string& layer) {
  return !rounding_of(options, part, layer + ".weight");
}

std::string escaped(std::string_view name) {
  std::string text;
  for (const char c : name) text += c == '.' ? std::string("\\.") : std::string(1, c);
  return text;
}

Unquantised unquantised(const QuantizeOptions& options, const Model& model, std::int64_t experts) {
  Unquantised result;
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    result.layers.push_back(layer_of(model, Part::gate, layer));
    result.fused.push_back(escaped(result.layers.back()) + "$");
    for (const Part part : kAttention) {
      const std::string name = layer_of(model, part, layer);
      if (!stays(options, part, name)) continue;
      result.layers.push_back(name);
      if (part == Part::q) {
        const std::string block = escaped(name.substr(0, name.rfind('.') + 1));
        result.fused.push_back(block + "(q|k|v|qkv)_proj$");
      } else if (part == Part::o) {
        result.fused.push_back(escaped(name) + "$");
      }
    }
    for (std::int64_t expert = 0; expert < experts; ++expert) {
      for (const Part part : kExpert) {
        const std::string name = layer_of(model, part, layer, expert);
        if (!stays(options, part, name)) continue;
        result.layers.push_back(name);
        if (expert > 0 || part != Part::w1) continue;
        const std::string_view numbered = std::string_view(name).substr(0, name.rfind('.'));
        result.fused.push_back(escaped(numbered.substr(0, numbered.rfind('.'))));
      }
    }
  }
  return result;
}

Json auto_round_config(const QuantizeOptions& options, const Unquantised& high) {
  Json config;
  config["bits"] = 4;
  config["data_type"] = "int";
  config["group_size"] = options.group;
  config["sym"] = true;
  config["iters"] = 0;
  config["autoround_version"] = kAutoRoundVersion;
  config["quant_method"] = "auto-round";
  config["packing_format"] = "auto_round:auto_gptq";
  Json extra = Json::object_t();
  for (const std::string& layer : high.layers) {
    extra.get_ref<Json::object_t&>().emplace_back(layer, Json{{"bits", 16}, {"data_type", "fp"}});
  }
  config["extra_config"] = std::move(extra);
  return config;
}

Json gptq_config(const QuantizeOptions& options, const Unquantised& high) {
  Json config;
  config["bits"] = 4;
  config["group_size"] = options.group;
  config["sym"] = true;
  config["desc_act"] = false;
  config["true_sequential"] = false;
  config["damp_percent"] = 0.01;
  config["lm_head"] = false;
  config["quant_method"] = "gptq";
  config["checkpoint_format"] = "gptq";
  Json dynamic = Json::object_t();
  for (const std::string& pattern : high.fused) {
    dynamic.get_ref<Json::object_t&>().emplace_back("-:" + pattern, Json::object_t());
  }
  config["dynamic"] = std::move(dynamic);
  return config;
}

Json packed_config(const QuantizeOptions& options, const Unquantised& high) {
  Json weights;
  weights["num_bits"] = 4;
  weights["type"] = "int";
  weights["symmetric"] = true;
  weights["strategy"] = "group";
  weights["group_size"] = options.group;
  weights["dynamic"] = false;
  weights["actorder"] = nullptr;
  weights["observer"] = "minmax";
  Json group;
  group["targets"] = Json::array({"Linear"});
  group["weights"] = std::move(weights);
  group["input_activations"] = nullptr;
  group["output_activations"] = nullptr;
  Json config;
  config["quant_method"] = "compressed-tensors";
  config["format"] = "pack-quantized";
  config["quantization_status"] = "compressed";
  config["config_groups"]["group_0"] = std::move(group);
  config["ignore"] = Json::array({"lm_head"});
  for (const std::string& layer : high.layers) config["ignore"].push_back(layer);
  config["kv_cache_scheme"] = nullptr;
  return config;
}

}  // namespace

Json quantization_config(const QuantizeOptions& options, const Model& model, std::int64_t experts) {
  const Unquantised high = unquantised(options, model, experts);
  switch (options.format) {
    case W4Format::auto_round:
      return auto_round_config(options, high);
    case W4Format::gptq:
      return gptq_config(options, high);
    case W4Format::compressed_tensors:
      return packed_config(options, high);
  }
  REAP_CHECK(false, "format {}", static_cast<int>(options.format));
}

std::string quantization_file(W4Format format) {
  switch (format) {
    case W4Format::auto_round:
      return "quantization_config.json";
    case W4Format::gptq:
      return "quantize_config.json";
    default:
      return "";
  }
}

bool is_quantization_file(std::string_view name) {
  return name == "quantization_config.json" || name == "quantize_config.json";
}

std::string member_text(const Json& json) {
  std::string text;
  for (const char c : json.dump(2)) {
    text += c;
    if (c == '\n') text += "  ";
  }
  return text;
}

}  // namespace reap
