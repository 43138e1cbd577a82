#include "shard/exchange.hpp"

#include <array>
#include <numeric>

#include "shard/room.hpp"

namespace reap {
namespace {

/// What two shards tell each other before they exchange anything.
struct Counts {
  std::int64_t rows = 0;
  std::int64_t slots = 0;
};

/// Where each shard's items start when it has count_of(shard) of them; the last entry is their number.
template <class CountOf>
void set_starts(std::vector<std::int64_t>& start, CountOf count_of) {
  start[0] = 0;
  for (std::size_t shard = 0; shard + 1 < start.size(); ++shard) start[shard + 1] = start[shard] + count_of(shard);
}

template <class T>
const std::byte* bytes_of(const T* values) {
  return reinterpret_cast<const std::byte*>(values);
}
template <class T>
std::byte* bytes_of(T* values) {
  return reinterpret_cast<std::byte*>(values);
}

}  // namespace

ExpertExchange::ExpertExchange(const Model& model, const Placement& placement, Backend& backend, Link& link)
    : experts_{model.router.experts},
      top_k_{model.router.top_k},
      row_bytes_{model.hidden * static_cast<std::int64_t>(size_of(activation_dtype(backend.compute())))},
      ep_{placement.grid.ep},
      self_{placement.shard},
      backend_{backend},
      link_{link},
      one_each_(static_cast<std::size_t>(ep_) + 1),
      rows_out_(one_each_.size()),
      rows_in_(one_each_.size()),
      slots_out_(one_each_.size()),
      slots_in_(one_each_.size()) {
  std::iota(one_each_.begin(), one_each_.end(), 0);
}

void ExpertExchange::all_count() {
  std::vector<Counts> sent(parcels_.size()), received(parcels_.size());
  for (std::size_t shard = 0; shard < parcels_.size(); ++shard) {
    sent[shard] = {static_cast<std::int64_t>(parcels_[shard].rows.size()),
                   static_cast<std::int64_t>(parcels_[shard].slots.size())};
  }
  const Link::Lane counts{
      Link::Lane::Place::host, bytes_of(sent.data()), bytes_of(received.data()), sizeof(Counts), one_each_, one_each_};
  link_.all_exchange(std::span(&counts, 1));
  set_starts(rows_out_, [&](std::size_t shard) { return sent[shard].rows; });
  set_starts(slots_out_, [&](std::size_t shard) { return sent[shard].slots; });
  set_starts(rows_in_, [&](std::size_t shard) { return received[shard].rows; });
  set_starts(slots_in_, [&](std::size_t shard) { return received[shard].slots; });
}

std::span<const SlotTag> ExpertExchange::all_dispatch(std::span<const std::int32_t> expert, std::int64_t rows,
                                                      std::byte* x) {
  parcels_ = make_parcels(expert, top_k_, experts_, ep_, self_);
  all_count();
  gathered_.clear();
  tags_.clear();
  for (const Parcel& parcel : parcels_) {
    gathered_.insert(gathered_.end(), parcel.rows.begin(), parcel.rows.end());
    tags_.insert(tags_.end(), parcel.slots.begin(), parcel.slots.end());
  }
  make_room(rows_, backend_.memory(), rows_out_.back() * row_bytes_);
  backend_.gather_rows(rows_.data(), x, gathered_.data(), rows_out_.back(), row_bytes_);

  came_.resize(static_cast<std::size_t>(slots_in_.back()));
  const std::array<Link::Lane, 2> lanes{
      Link::Lane{Link::Lane::Place::host, bytes_of(tags_.data()), bytes_of(came_.data()), sizeof(SlotTag), slots_out_,
                 slots_in_},
      Link::Lane{Link::Lane::Place::backend, rows_.data(), x + rows * row_bytes_, row_bytes_, rows_out_, rows_in_}};
  link_.all_exchange(lanes);

  for (std::size_t shard = 0; shard < parcels_.size(); ++shard) {
    const auto first = static_cast<std::int32_t>(rows + rows_in_[shard]);
    for (auto slot = static_cast<std::size_t>(slots_in_[shard]); slot < static_cast<std::size_t>(slots_in_[shard + 1]);
         ++slot) {
      came_[slot].row += first;
    }
  }
  return came_;
}

void ExpertExchange::all_collect(std::span<const std::int32_t> expert, std::span<const std::int32_t> came,
                                 std::int64_t computed, std::byte* f, float* norm, float* max_abs,
                                 std::span<std::int32_t> position) {
  const std::int64_t back = slots_in_.back();
  make_room(rows_, backend_.memory(), back * row_bytes_);
  make_room(norms_, backend_.memory(), back);
  make_room(maxima_, backend_.memory(), back);
  backend_.gather_rows(rows_.data(), f, came.data(), back, row_bytes_);
  backend_.gather_rows(norms_.data(), norm, came.data(), back, sizeof(float));
  backend_.gather_rows(maxima_.data(), max_abs, came.data(), back, sizeof(float));

  const auto lane = [&](const std::byte* send, std::byte* receive, std::int64_t item_bytes) {
    return Link::Lane{
        Link::Lane::Place::backend, send, receive + computed * item_bytes, item_bytes, slots_in_, slots_out_};
  };
  const std::array<Link::Lane, 3> lanes{lane(rows_.data(), f, row_bytes_),
                                        lane(bytes_of(norms_.data()), bytes_of(norm), sizeof(float)),
                                        lane(bytes_of(maxima_.data()), bytes_of(max_abs), sizeof(float))};
  link_.all_exchange(lanes);
  place_returned(expert, parcels_, experts_, computed, position);
}

}  // namespace reap
