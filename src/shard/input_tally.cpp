#include "shard/input_tally.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "kernels/check.hpp"

namespace reap {
namespace {

// A digit grows by less than 2^32 with a row, from less than 2^48 after a carry.
constexpr std::int64_t kRowsPerCarry = std::int64_t{1} << 30;

template <class T>
std::size_t bytes_of(const std::vector<T>& values) {
  return values.size() * sizeof(T);
}

}  // namespace

std::int64_t width_of(InputKind kind, const Model& model) {
  switch (kind) {
    case InputKind::output:
      return model.attention.heads * model.attention.head_dim;
    case InputKind::inner:
      return model.expert.inner;
    case InputKind::attention:
    case InputKind::experts:
      break;
  }
  return model.hidden;
}

InputTally::InputTally(const Model& model, const Placement& placement, bool collected, Backend& backend)
    : backend_{backend},
      layers_{placement.layers},
      model_layers_{model.layers},
      group_{placement.grid.ep},
      bad_{backend.memory(), collected ? layers_.size() : 0},
      rows_(static_cast<std::size_t>(layers_.size())) {
  if (!collected) return;
  backend.zero(bad_.data(), static_cast<std::size_t>(bad_.bytes()));
  for (const InputKind kind : kInputKinds) {
    Part part{.width = width_of(kind, model), .rows = {0, 1}, .all_rows = 1, .sums = {}};
    if (is_per_expert(kind)) {
      part.rows = placement.experts;
      part.all_rows = model.router.experts;
    }
    part.sums = {backend.memory(), layers_.size() * part.layer_size()};
    backend.zero(part.sums.data(), static_cast<std::size_t>(part.sums.bytes()));
    parts_.push_back(std::move(part));
  }
}

InputSums InputTally::at(std::int64_t layer, std::int64_t rows) {
  if (parts_.empty()) return {};
  const std::int64_t own = layer - layers_.begin;
  std::int64_t& added = rows_[static_cast<std::size_t>(own)];
  if (added + rows * group_ > kRowsPerCarry) carry(layer);
  added += rows * group_;
  const auto sums = [&](InputKind kind) {
    return SquareSums{part(kind).sums.data() + own * part(kind).layer_size(), bad_.data() + own};
  };
  return {sums(InputKind::attention), sums(InputKind::output), sums(InputKind::experts), sums(InputKind::inner)};
}

void InputTally::check() const {
  if (parts_.empty()) return;
  std::vector<std::int64_t> bad(rows_.size());
  backend_.download(bad.data(), bad_.data(), bytes_of(bad));
  backend_.synchronize();
  const auto found = std::ranges::find_if(bad, [](std::int64_t flag) { return flag != 0; });
  if (found == bad.end()) return;
  fail(ExitCode::numerics,
       "layer {}: the square of an input of a linear layer is not finite or not below 2^32; look for broken weights in "
       "this layer or before, or collect no imatrix (--collect)",
       layers_.begin + (found - bad.begin()));
}

/// A layer of a table, canonical, as all ranks would have it; what is not this rank's is 0.
Imatrix::Table InputTally::download(InputKind kind, std::int64_t layer) const {
  const Part& own = part(kind);
  Imatrix::Table table{own.width, {}};
  table.sums.resize(static_cast<std::size_t>(own.all_rows * kSquareDigits * own.width));
  if (layers_.holds(layer)) {
    backend_.download(table.sums.data() + own.rows.begin * kSquareDigits * own.width,
                      own.sums.data() + (layer - layers_.begin) * own.layer_size(),
                      static_cast<std::size_t>(own.layer_size()) * sizeof(std::int64_t));
    backend_.synchronize();
  }
  normalise_squares(table, kind, 1, layer);
  return table;
}

void InputTally::carry(std::int64_t layer) {
  for (const InputKind kind : kInputKinds) {
    const Part& own = part(kind);
    const Imatrix::Table table = download(kind, layer);
    backend_.upload(own.sums.data() + (layer - layers_.begin) * own.layer_size(),
                    table.sums.data() + own.rows.begin * kSquareDigits * own.width,
                    static_cast<std::size_t>(own.layer_size()) * sizeof(std::int64_t));
  }
  backend_.synchronize();
  rows_[static_cast<std::size_t>(layer - layers_.begin)] = 0;
}

Imatrix InputTally::all_sum(const Comm& world, const Imatrix& base) const {
  check();
  Imatrix total;
  if (parts_.empty()) return total;
  for (const InputKind kind : kInputKinds) {
    Imatrix::Table& all = total.at(kind);
    for (std::int64_t layer = 0; layer < model_layers_; ++layer) {
      Imatrix::Table table = download(kind, layer);
      const std::vector<std::int64_t>& before = base.at(kind).sums;
      if (world.rank() == 0 && !before.empty()) {
        const auto size = static_cast<std::int64_t>(table.sums.size());
        REAP_CHECK(std::cmp_equal(before.size(), model_layers_ * size), "a base of {} squares, not {}", before.size(),
                   model_layers_ * size);
        std::transform(table.sums.begin(), table.sums.end(), before.begin() + layer * size, table.sums.begin(),
                       std::plus<>());
      }
      world.all_sum_at(0, table.sums);
      if (world.rank() != 0) continue;
      normalise_squares(table, kind, 1, layer);
      all.width = table.width;
      all.sums.insert(all.sums.end(), table.sums.begin(), table.sums.end());
    }
  }
  return total;
}

}  // namespace reap
