#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "driver/digest.hpp"
#include "driver/inspect_parts.hpp"
#include "driver/progress.hpp"
#include "shard/checkpoint.hpp"
#include "shard/families.hpp"
#include "shard/inventory.hpp"
#include "shard/placement.hpp"

namespace reap {
namespace {

/// Parts that belong together, in the order of the table.
enum class Kind : std::uint8_t { embedding, norms, attention, router, experts, head, mtp };

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::embedding:
      return "embedding";
    case Kind::norms:
      return "norms";
    case Kind::attention:
      return "attention";
    case Kind::router:
      return "router";
    case Kind::experts:
      return "experts";
    case Kind::head:
      return "head";
    case Kind::mtp:
      break;
  }
  return "MTP";
}

Kind kind_of(Part part) {
  switch (part) {
    case Part::embedding:
      return Kind::embedding;
    case Part::final_norm:
    case Part::input_norm:
    case Part::post_norm:
      return Kind::norms;
    case Part::head:
      return Kind::head;
    case Part::q:
    case Part::k:
    case Part::v:
    case Part::o:
    case Part::q_norm:
    case Part::k_norm:
      return Kind::attention;
    case Part::gate:
    case Part::gate_bias:
      return Kind::router;
    case Part::w1:
    case Part::w3:
    case Part::w2:
      return Kind::experts;
    case Part::mtp:
      break;
  }
  return Kind::mtp;
}

struct Amount {
  std::int64_t tensors = 0, bytes = 0, parameters = 0;
  std::set<std::string_view> dtypes;
};

std::map<Kind, Amount> amounts_of(const Checkpoint& checkpoint, const std::vector<Claim>& claims) {
  std::map<Kind, Amount> amounts;
  for (std::size_t i = 0; i < claims.size(); ++i) {
    const Tensor& tensor = checkpoint.tensors()[i];
    Amount& amount = amounts[kind_of(claims[i].part)];
    ++amount.tensors;
    amount.bytes += static_cast<std::int64_t>(tensor.bytes);
    amount.dtypes.insert(reap::name_of(tensor.dtype));
    amount.parameters += parameters_of(tensor, claims[i]);
  }
  return amounts;
}

std::string amount_row(std::string_view name, const Amount& h) {
  return fmt::format("  {:<20}{:>9} {:>12} {:>16}  {}\n", name, h.tensors, readable_bytes(h.bytes), h.parameters,
                     fmt::join(h.dtypes, ", "));
}

std::string amount_table(const std::map<Kind, Amount>& amounts) {
  std::string text =
      fmt::format("\n  {:<20}{:>9} {:>12} {:>16}  {}\n", "part", "tensors", "bytes", "parameters", "types");
  Amount total;
  for (const auto& [kind, amount] : amounts) {
    text += amount_row(name_of(kind), amount);
    total.tensors += amount.tensors;
    total.bytes += amount.bytes;
    total.parameters += amount.parameters;
  }
  return text + amount_row("total", total);
}

/// Parameters that one token meets: all but MTP modules and the experts that are not chosen.
std::int64_t active_parameters(const std::map<Kind, Amount>& amounts, const RouterSpec& router) {
  std::int64_t active = 0;
  for (const auto& [kind, amount] : amounts) {
    if (kind == Kind::mtp) continue;
    active += kind == Kind::experts ? amount.parameters / router.experts * router.top_k : amount.parameters;
  }
  return active;
}

/// What a rank holds when the layers alone are split, and with each layer's experts split as well.
std::string grid_table(const Model& model) {
  std::string text = fmt::format("\nWeights per rank; --pp up to {}, --ep up to {}, --dp up to the number of blocks\n",
                                 model.layers, model.router.experts);
  text += fmt::format("  {:<20}{:>9}\n", "grid", "bytes");
  std::vector<Grid> grids;
  for (int pp = 1; pp <= 16 && pp <= model.layers; pp *= 2) grids.push_back({pp, 1, 1});
  if (model.router.experts >= 8) grids.push_back({1, 8, 1});
  for (const Grid& grid : grids) {
    text += inspect_line(fmt::format("pp {} x ep {}", grid.pp, grid.ep),
                         fmt::format("{:>9}", readable_bytes(weight_bytes_per_rank(model, grid, Compute::bf16))));
  }
  return text;
}

}  // namespace

std::string inspect_model(const std::filesystem::path& directory) {
  const Checkpoint checkpoint(directory);
  const Model model = describe_model(checkpoint);
  const std::map<Kind, Amount> amounts = amounts_of(checkpoint, claim_tensors(checkpoint, model));
  const AttentionShape& attention = model.attention;

  std::string text = fmt::format("{}: model\n", directory.string());
  text += inspect_line("type", model.type);
  text += inspect_line("digest", model_digest(checkpoint));
  text += inspect_line(
      "layers",
      fmt::format("{}{}", model.layers, model.mtp_layers == 0 ? "" : fmt::format(", and {} of MTP", model.mtp_layers)));
  text += inspect_line("experts", fmt::format("{} per layer, top-{}, {} wide", model.router.experts, model.router.top_k,
                                              model.expert.inner));
  text += inspect_line("hidden", fmt::format("{}, vocabulary of {}", model.hidden, model.vocab));
  text += inspect_line("attention", fmt::format("{} heads of {}, {} of keys and values", attention.heads,
                                                attention.head_dim, attention.kv_heads));
  text += inspect_line(
      "files", fmt::format("{}, and {} beside them", checkpoint.files().size(), checkpoint.side_files().size()));
  text += inspect_line("active parameters", fmt::format("{} per token", active_parameters(amounts, model.router)));
  return text + amount_table(amounts) + grid_table(model);
}

}  // namespace reap
