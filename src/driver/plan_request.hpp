#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shard/json.hpp"

namespace reap {

/// A number that a request gives to one domain of the calibration.
struct DomainNumber {
  std::string domain;
  double value = 0;
  bool operator==(const DomainNumber&) const = default;
};

/// Whether every layer drops as many, or all layers share one budget.
enum class Allocation : std::uint8_t { layer, global };

/// How experts are chosen.
struct PlanRequest {
  std::string criterion = "reap";  // as criterion_name() writes it
  double ratio = 0;                // drop floor(experts * ratio) per layer, unless `keep` is given
  std::int64_t keep = 0;           // experts kept per layer; 0 = by ratio
  std::int64_t keep_multiple = 1;  // round the kept count up to a multiple of this
  std::uint64_t seed = 0;          // of criterion "random"
  bool preserve_super_experts = false;
  std::vector<DomainNumber> domain_weights = {};  // by ascending name; in a plan none is 1
  std::vector<DomainNumber> protect = {};         // by ascending name: share of the domain's saliency
  Allocation allocation = Allocation::layer;
};

/// "reap-0.25", "reap_0.5-keep-192": what the output of a request is called. A good name for a folder.
std::string plan_name(const PlanRequest& request);

/// "code=2" with separator '=' -> {"code", 2}; the last separator counts, so a name may hold others. In order of names.
/// @throws Error(usage) for a text that is no such pair, a number below 0 or not finite, or a domain named twice
std::vector<DomainNumber> parse_domain_numbers(const std::vector<std::string>& texts, char separator,
                                               std::string_view option);

/// That the parts of a request go together: an allocation over all layers needs a criterion that compares them, and
/// weights of domains one that has sums by domain. @throws Error(usage)
void check_together(const PlanRequest& request);

/// The weights that say something: those of 1 are as good as not given.
std::vector<DomainNumber> without_ones(std::vector<DomainNumber> weights);

/// All domains that the request names exist, protected shares are below 1, and some domain keeps a weight.
/// @param domains  of the calibration
/// @throws Error(usage)
void check_domains(const PlanRequest& request, std::span<const std::string> domains);

/// The weight of each domain, [domains].
std::vector<double> weights_of(const PlanRequest& request, std::span<const std::string> domains);

/// "cpp 2, tools 0"; "" for none.
std::string list_text(const std::vector<DomainNumber>& numbers);

/// Adds the members "domain_weights" and "protect" to a JSON object, each only when something was asked for.
void add_domain_members(Json& object, const PlanRequest& request);
/// Reads them back. @throws Error(bad_input) when they are not as they were written
void read_domain_members(const Json& object, PlanRequest& request);

}  // namespace reap
