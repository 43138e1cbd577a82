#include "driver/plan_request.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "driver/criteria.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr const char* kWeights = "domain_weights";
constexpr const char* kProtect = "protect";
constexpr const char* kAllocation = "allocation";

bool by_name(const DomainNumber& a, const DomainNumber& b) { return a.domain < b.domain; }

bool ascending(const std::vector<DomainNumber>& numbers) {
  return std::ranges::adjacent_find(numbers, [](const auto& a, const auto& b) { return !by_name(a, b); }) ==
         numbers.end();
}

// Weighted sums of fields, which may come to 2^95, stay far within what a double holds.
constexpr double kLargest = 1e100;

bool is_amount(double value) { return value >= 0 && value <= kLargest; }

void check_known(const std::vector<DomainNumber>& numbers, std::span<const std::string> domains,
                 std::string_view option) {
  for (const DomainNumber& number : numbers) {
    if (std::ranges::find(domains, number.domain) != domains.end()) continue;
    fail(ExitCode::usage, "--{}: there is no domain {}; the calibration has {}", option, shown(number.domain),
         fmt::join(domains, ", "));
  }
}

void add_numbers(Json& object, const char* key, const std::vector<DomainNumber>& numbers) {
  if (numbers.empty()) return;
  Json& member = object[key];
  for (const DomainNumber& number : numbers) member[number.domain] = number.value;
}

std::vector<DomainNumber> read_numbers(const Json& object, const char* key) {
  std::vector<DomainNumber> numbers;
  const auto member = object.find(key);
  if (member == object.end()) return numbers;
  bool good = member->is_object();
  for (const auto& [domain, value] : member->items()) {
    good = good && value.is_number() && is_amount(value.get<double>());
    if (good) numbers.push_back({domain, value.get<double>()});
  }
  if (!good || !ascending(numbers)) {
    fail(ExitCode::bad_input, "'{}' is not an object of numbers by ascending name of a domain", key);
  }
  return numbers;
}

}  // namespace

std::string plan_name(const PlanRequest& request) {
  std::string criterion = request.criterion;
  std::ranges::replace(criterion, ':', '_');  // rsync and scp take what is before a colon for a host
  if (request.allocation == Allocation::global) criterion += "-global";
  return request.keep > 0 ? fmt::format("{}-keep-{}", criterion, request.keep)
                          : fmt::format("{}-{}", criterion, request.ratio);
}

std::vector<DomainNumber> parse_domain_numbers(const std::vector<std::string>& texts, char separator,
                                               std::string_view option) {
  std::vector<DomainNumber> numbers;
  for (const std::string& text : texts) {
    const std::size_t at = text.rfind(separator);
    DomainNumber number;
    bool good = at != std::string::npos && at > 0;
    if (good) {
      number.domain = text.substr(0, at);
      const char* const end = text.data() + text.size();
      const auto parsed = std::from_chars(text.data() + at + 1, end, number.value);
      good = parsed.ec == std::errc() && parsed.ptr == end && is_amount(number.value);
    }
    if (!good) {
      fail(ExitCode::usage, "--{} {}: must be the name of a domain, '{}' and a number from 0 to {}", option,
           shown(text), separator, kLargest);
    }
    number.value = std::abs(number.value);  // -0
    numbers.push_back(std::move(number));
  }
  std::ranges::sort(numbers, by_name);
  const auto twice = std::ranges::adjacent_find(numbers, {}, &DomainNumber::domain);
  if (twice != numbers.end()) fail(ExitCode::usage, "--{}: {} is given twice", option, shown(twice->domain));
  return numbers;
}

void check_together(const PlanRequest& request) {
  const bool by_expert = parse_criterion(request.criterion).by_expert();
  if (!by_expert && !without_ones(request.domain_weights).empty()) {
    fail(ExitCode::usage, "--domain-weight: criterion {} rests on sums over all domains together", request.criterion);
  }
  if (request.allocation == Allocation::layer) return;
  if (by_expert) {
    fail(ExitCode::usage,
         "--allocation global: scores of {} do not compare from layer to layer; the criterion for it is gram",
         request.criterion);
  }
  if (request.keep_multiple > 1) {
    fail(ExitCode::usage, "--allocation global and --keep-multiple exclude each other: layers keep unequal numbers");
  }
}

std::vector<DomainNumber> without_ones(std::vector<DomainNumber> weights) {
  std::erase_if(weights, [](const DomainNumber& weight) { return weight.value == 1; });
  return weights;
}

void check_domains(const PlanRequest& request, std::span<const std::string> domains) {
  check_known(request.domain_weights, domains, "domain-weight");
  check_known(request.protect, domains, "protect");
  for (const DomainNumber& number : request.protect) {
    if (number.value < 1) continue;
    fail(ExitCode::usage, "--protect {}:{}: must be a share below 1", number.domain, number.value);
  }
  if (request.domain_weights.empty()) return;
  const std::vector<double> weights = weights_of(request, domains);
  if (std::ranges::count(weights, 0.0) == std::ssize(weights)) {
    fail(ExitCode::usage, "--domain-weight: every domain has a weight of 0, so nothing is left to go by");
  }
}

std::vector<double> weights_of(const PlanRequest& request, std::span<const std::string> domains) {
  std::vector<double> weights;
  for (const std::string& domain : domains) {
    const auto found = std::ranges::find(request.domain_weights, domain, &DomainNumber::domain);
    weights.push_back(found == request.domain_weights.end() ? 1 : found->value);
  }
  return weights;
}

std::string list_text(const std::vector<DomainNumber>& numbers) {
  std::string text;
  for (const DomainNumber& number : numbers) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", number.domain, number.value);
  }
  return text;
}

void add_domain_members(Json& object, const PlanRequest& request) {
  add_numbers(object, kWeights, request.domain_weights);
  add_numbers(object, kProtect, request.protect);
  if (request.allocation == Allocation::global) object[kAllocation] = "global";
}

void read_domain_members(const Json& object, PlanRequest& request) {
  request.domain_weights = read_numbers(object, kWeights);
  request.protect = read_numbers(object, kProtect);
  const auto allocation = object.find(kAllocation);
  if (allocation == object.end()) return;
  if (*allocation != "global") fail(ExitCode::bad_input, "'{}' is not \"global\"", kAllocation);
  request.allocation = Allocation::global;
}

}  // namespace reap
