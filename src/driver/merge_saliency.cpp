#include "driver/merge_saliency.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <span>

#include "driver/output_tables.hpp"
#include "driver/saliency_parts.hpp"
#include "driver/saliency_tables.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::int64_t kHalves = 2;
constexpr std::int64_t kDigitEnd = std::int64_t{1} << 32;

/// A part with its largest magnitudes, [groups, layers, experts] of the table that it is a part of.
struct Portion {
  CalibrationPart part;
  std::vector<float> max_abs;
};

/// What `file` is of; finish() gives it back its own.
std::vector<Portion> take_portions(SaliencyFile& file) {
  std::vector<CalibrationPart> parts = parts_of(file.info);
  if (parts.size() == 1) return {{std::move(parts[0]), file.saliency.max_abs}};
  std::vector<Portion> portions;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    portions.push_back({std::move(parts[i]), std::move(file.part_max_abs[i])});
  }
  return portions;
}

void check_same_kind(const SaliencyFile& a, const SaliencyFile& b) {
  const auto same = [](const char* what, const auto& left, const auto& right) {
    if (left != right) fail(ExitCode::bad_input, "its {} is {}, that of the files before {}", what, right, left);
  };
  same("model type", a.info.model_type, b.info.model_type);
  same("model digest", a.info.model_digest, b.info.model_digest);
  same("plan", a.info.plan_digest, b.info.plan_digest);
  same("compute type", a.info.compute, b.info.compute);
  same("numerics id", a.info.numerics_id, b.info.numerics_id);
  same("block size", a.info.block_tokens, b.info.block_tokens);
  same("top_k", a.info.top_k, b.info.top_k);
  same("number of layers", a.saliency.layers, b.saliency.layers);
  same("number of experts", a.saliency.experts, b.saliency.experts);
}

/// Where each group of `from` is in `to`, -1 where it is not.
std::vector<std::int64_t> places(const std::vector<std::string>& from, const std::vector<std::string>& to) {
  std::vector<std::int64_t> places;
  for (const std::string& name : from) {
    const auto found = std::ranges::find(to, name);
    for (std::int64_t half = 0; half < kHalves; ++half) {
      places.push_back(found == to.end() ? -1 : (found - to.begin()) * kHalves + half);
    }
  }
  return places;
}

/// Tables that only one of the files has are no sum of both.
void drop_unshared(Saliency& a, Saliency& b) {
  const Collected both{!a.gram.empty() && !b.gram.empty(), !a.outputs.empty() && !b.outputs.empty(),
                       !a.imatrix.empty() && !b.imatrix.empty(), !a.moments.empty() && !b.moments.empty()};
  for (Saliency* table : {&a, &b}) {
    if (!both.gram) table->gram.clear();
    if (!both.outputs) table->outputs.clear();
    if (!both.outputs) table->hidden = 0;
    if (!both.imatrix) table->imatrix = {};
    if (!both.moments) table->moments = {};
  }
  if (a.hidden != b.hidden) fail(ExitCode::bad_input, "its outputs are {} wide, those before {}", b.hidden, a.hidden);
  const auto same_width = [](InputKind kind, const auto& first, const auto& second) {
    if (first.width == second.width) return;
    fail(ExitCode::bad_input, "its input '{}' is {} wide, that before {}", name_of(kind), second.width, first.width);
  };
  for (const InputKind kind : kInputKinds) same_width(kind, a.imatrix.at(kind), b.imatrix.at(kind));
  for (const InputKind kind : kMomentKinds) same_width(kind, a.moments.at(kind), b.moments.at(kind));
}

/// Values of groups in a table of other groups; of a group that has no place there, all have to be 0.
template <class T>
std::vector<T> moved(const std::vector<T>& values, const std::vector<std::int64_t>& places, std::int64_t groups) {
  const std::size_t size = values.size() / places.size();
  std::vector<T> result(static_cast<std::size_t>(groups) * size);
  for (std::size_t g = 0; g < places.size(); ++g) {
    const auto group = std::span(values).subspan(g * size, size);
    if (places[g] >= 0) {
      std::ranges::copy(group, result.begin() + places[g] * static_cast<std::int64_t>(size));
    } else if (std::ranges::any_of(group, [](T value) { return value != 0; })) {
      fail(ExitCode::bad_input, "something of a domain would be left without its samples");
    }
  }
  return result;
}

void move(SaliencyFile& file, std::vector<Portion>& portions, const std::vector<std::string>& domains) {
  if (domains == file.info.domains) return;
  const std::vector<std::int64_t> to = places(file.info.domains, domains);
  Saliency& table = file.saliency;
  table.groups = static_cast<std::int64_t>(domains.size()) * kHalves;
  table.sums = moved(table.sums, to, table.groups);
  table.max_abs = moved(table.max_abs, to, table.groups);
  for (Portion& portion : portions) portion.max_abs = moved(portion.max_abs, to, table.groups);
  file.info.domains = domains;
}

void raise(std::vector<float>& largest, const std::vector<float>& by) {
  std::ranges::transform(largest, by, largest.begin(), [](float a, float b) { return std::max(a, b); });
}

/// Portions are in order: those of one calibration file stand together, and neighbours show an overlap.
void check_disjoint(const std::vector<Portion>& portions) {
  for (std::size_t i = 1; i < portions.size(); ++i) {
    const CalibrationPart &a = portions[i - 1].part, &b = portions[i].part;
    if (a.digest != b.digest) continue;
    if (b.first < a.last) fail(ExitCode::bad_input, "{} are in it and in a file before", describe(b));
    if (a.file_samples != b.file_samples || a.domains != b.domains) {
      fail(ExitCode::bad_input, "it and a file before disagree about calibration {}", a.digest);
    }
  }
}

/// Makes one portion of those that together are a whole calibration file.
std::vector<Portion> collapsed(std::vector<Portion> portions) {
  std::vector<Portion> result;
  for (auto first = portions.begin(); first != portions.end();) {
    const auto last =
        std::find_if(first, portions.end(), [&](const Portion& p) { return p.part.digest != first->part.digest; });
    std::int64_t samples = 0;
    for (auto p = first; p != last; ++p) samples += p->part.last - p->part.first;
    if (samples == first->part.file_samples) {
      for (auto p = first + 1; p != last; ++p) {
        first->part.tokens += p->part.tokens;
        raise(first->max_abs, p->max_abs);
      }
      first->part.last = samples;
      result.push_back(std::move(*first));
    } else {
      std::move(first, last, std::back_inserter(result));
    }
    first = last;
  }
  return result;
}

/// Puts what follows from the portions, which are in order, into `file`.
void finish(SaliencyFile& file, std::vector<Portion> portions) {
  std::vector<CalibrationPart> parts;
  std::ranges::fill(file.saliency.max_abs, 0.0f);
  file.part_max_abs.clear();
  for (Portion& portion : portions) {
    raise(file.saliency.max_abs, portion.max_abs);
    parts.push_back(std::move(portion.part));
    if (portions.size() > 1) file.part_max_abs.push_back(std::move(portion.max_abs));
  }
  set_parts(file.info, std::move(parts));
  file.info.collected = file.saliency.collected();
}

/// from - amount, both canonical. @return false when it would be negative
bool subtract_digits(std::span<std::int64_t> from, std::span<const std::int64_t> amount) {
  std::int64_t borrow = 0;
  for (std::size_t i = 0; i < from.size(); ++i) {
    from[i] -= amount[i] + borrow;
    borrow = from[i] < 0 && i + 1 < from.size() ? 1 : 0;
    from[i] += borrow * kDigitEnd;
  }
  return from.back() >= 0;
}

/// The sums of a cell less those of another; count first.
bool subtract_cell(std::span<std::int64_t> from, std::span<const std::int64_t> amount) {
  bool possible = subtract_digits(from.first(1), amount.first(1));
  for (const FieldInfo& info : kFields) {
    const auto at = static_cast<std::size_t>(digits_offset(info.field));
    possible = subtract_digits(from.subspan(at, kDigits), amount.subspan(at, kDigits)) && possible;
  }
  return possible;
}

/// The portion of that very part. @throws Error(bad_input) when there is none
std::vector<Portion>::iterator find_part(std::vector<Portion>& portions, const CalibrationPart& part) {
  const auto found = std::ranges::find(portions, part, &Portion::part);
  if (found != portions.end()) return found;
  const auto whole =
      std::ranges::find_if(portions, [&](const Portion& p) { return p.part.digest == part.digest && p.part.whole(); });
  if (whole == portions.end()) fail(ExitCode::bad_input, "{} are no part of the sum", describe(part));
  fail(ExitCode::bad_input,
       "{} are in the sum only as {}, from which no part can be taken; merge the parts that should stay",
       describe(part), describe(whole->part));
}

void take_out(std::vector<Portion>& portions, const Portion& portion) {
  const auto found = find_part(portions, portion.part);
  if (found->max_abs != portion.max_abs) {
    fail(ExitCode::bad_input, "{} are in the sum with other values", describe(portion.part));
  }
  portions.erase(found);
}

/// Tables of some kinds of inputs, added or subtracted.
template <class Tables, class Operation>
void combine(Tables& to, const Tables& from, Operation operation) {
  for (std::size_t kind = 0; kind < to.tables.size(); ++kind) {
    auto& sums = to.tables[kind].sums;
    std::ranges::transform(sums, from.tables[kind].sums, sums.begin(), operation);
  }
}

/// Takes the sums of one table from those of another. @throws Error(bad_input) when one would be negative
void subtract_sums(Saliency& from, const Saliency& amount) {
  const auto size = static_cast<std::size_t>(kSumsPerExpert);
  for (std::size_t at = 0; at < from.sums.size(); at += size) {
    if (subtract_cell(std::span(from.sums).subspan(at, size), std::span(amount.sums).subspan(at, size))) continue;
    const std::int64_t cell = static_cast<std::int64_t>(at) / kSumsPerExpert;
    fail(ExitCode::bad_input, "layer {}, expert {}: its sums are larger than those that it should be a part of",
         cell / from.experts % from.layers, cell % from.experts);
  }
  // Those of either sign: whether what is left is possible is checked in the end.
  std::ranges::transform(from.gram, amount.gram, from.gram.begin(), std::minus<>());
  std::ranges::transform(from.outputs, amount.outputs, from.outputs.begin(), std::minus<>());
  combine(from.imatrix, amount.imatrix, std::minus<>());
  combine(from.moments, amount.moments, std::minus<>());
  from.normalise();
}

}  // namespace

SaliencyFile add(SaliencyFile a, SaliencyFile b) {
  check_same_kind(a, b);
  drop_unshared(a.saliency, b.saliency);
  std::int64_t total = 0;
  if (__builtin_add_overflow(a.info.tokens, b.info.tokens, &total) ||
      __builtin_mul_overflow(total, a.info.top_k, &total)) {
    fail(ExitCode::bad_input, "together they are of more tokens than can be counted");
  }
  std::vector<Portion> portions = take_portions(a), more = take_portions(b);
  std::vector<CalibrationPart> parts = parts_of(a.info);
  std::ranges::copy(parts_of(b.info), std::back_inserter(parts));
  const std::vector<std::string> domains = domains_of(parts);
  move(a, portions, domains);
  move(b, more, domains);

  std::ranges::move(more, std::back_inserter(portions));
  std::ranges::sort(portions, [](const Portion& x, const Portion& y) { return x.part < y.part; });
  check_disjoint(portions);
  std::ranges::transform(a.saliency.sums, b.saliency.sums, a.saliency.sums.begin(), std::plus<>());
  std::ranges::transform(a.saliency.gram, b.saliency.gram, a.saliency.gram.begin(), std::plus<>());
  combine(a.saliency.imatrix, b.saliency.imatrix, std::plus<>());
  combine(a.saliency.moments, b.saliency.moments, std::plus<>());
  a.saliency.normalise();
  finish(a, collapsed(std::move(portions)));
  if (!a.saliency.outputs.empty()) check_output_range(a.saliency);
  std::ranges::transform(a.saliency.outputs, b.saliency.outputs, a.saliency.outputs.begin(), std::plus<>());
  return a;
}

SaliencyFile subtract(SaliencyFile a, SaliencyFile b) {
  check_same_kind(a, b);
  drop_unshared(a.saliency, b.saliency);
  std::vector<Portion> portions = take_portions(a), less = take_portions(b);
  for (const Portion& portion : less) find_part(portions, portion.part);  // so that all domains of b are known in a
  move(b, less, a.info.domains);
  for (const Portion& portion : less) take_out(portions, portion);
  if (portions.empty()) fail(ExitCode::bad_input, "nothing would be left of the sum");

  subtract_sums(a.saliency, b.saliency);
  std::vector<CalibrationPart> parts(portions.size());
  std::ranges::transform(portions, parts.begin(), &Portion::part);
  std::ranges::fill(a.saliency.max_abs, 0.0f);  // of what is taken out; finish() puts in that of what stays
  move(a, portions, domains_of(parts));
  finish(a, std::move(portions));
  const std::vector<std::int64_t> tokens(static_cast<std::size_t>(a.saliency.layers), a.info.tokens);
  check_counts("what would be left", a.saliency, a.info.top_k, tokens);
  check_output_tables("what would be left", a.saliency);
  return a;
}

}  // namespace reap
