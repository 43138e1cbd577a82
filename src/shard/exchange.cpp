#include "shard/exchange.hpp"

#include <cstring>

#include "shard/room.hpp"

namespace reap {
namespace {

/// Where each shard's bytes start when it has bytes_of(shard) of them; the last entry is the sum.
template <class BytesOf>
void set_starts(std::vector<std::int64_t>& start, BytesOf bytes_of) {
  start[0] = 0;
  for (std::size_t shard = 0; shard + 1 < start.size(); ++shard) start[shard + 1] = start[shard] + bytes_of(shard);
}

template <class T>
std::int64_t bytes_of_all(const std::vector<T>& values) {
  return static_cast<std::int64_t>(values.size() * sizeof(T));
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
      sent_(static_cast<std::size_t>(ep_)),
      received_(static_cast<std::size_t>(ep_)),
      send_start_(static_cast<std::size_t>(ep_) + 1),
      receive_start_(static_cast<std::size_t>(ep_) + 1) {}

void ExpertExchange::all_count() {
  for (std::size_t shard = 0; shard < parcels_.size(); ++shard) {
    sent_[shard] = {static_cast<std::int64_t>(parcels_[shard].rows.size()),
                    static_cast<std::int64_t>(parcels_[shard].slots.size())};
  }
  const auto count_bytes = [](std::size_t) { return static_cast<std::int64_t>(sizeof(Counts)); };
  set_starts(send_start_, count_bytes);
  set_starts(receive_start_, count_bytes);
  link_.all_exchange(std::as_bytes(std::span(sent_)).data(), send_start_,
                     std::as_writable_bytes(std::span(received_)).data(), receive_start_);
}

void ExpertExchange::reserve_messages() {
  make_room(send_, host_memory, send_start_.back());
  make_room(receive_, host_memory, receive_start_.back());
}

/// A message of a dispatch: the tags of its slots, then its rows.
std::span<const SlotTag> ExpertExchange::all_dispatch(std::span<const std::int32_t> expert, std::int64_t rows,
                                                      std::byte* x) {
  parcels_ = make_parcels(expert, top_k_, experts_, ep_, self_);
  all_count();
  const auto message_bytes = [&](const Counts& counts) {
    return counts.slots * static_cast<std::int64_t>(sizeof(SlotTag)) + counts.rows * row_bytes_;
  };
  set_starts(send_start_, [&](std::size_t shard) { return message_bytes(sent_[shard]); });
  set_starts(receive_start_, [&](std::size_t shard) { return message_bytes(received_[shard]); });
  reserve_messages();

  for (std::size_t shard = 0; shard < parcels_.size(); ++shard) {
    const Parcel& parcel = parcels_[shard];
    if (parcel.slots.empty()) continue;
    std::byte* to = send_.data() + send_start_[shard];
    std::memcpy(to, parcel.slots.data(), static_cast<std::size_t>(bytes_of_all(parcel.slots)));
    to += bytes_of_all(parcel.slots);
    backend_.download_rows(to, x, parcel.rows.data(), sent_[shard].rows, row_bytes_);
  }
  backend_.synchronize();
  link_.all_exchange(send_.data(), send_start_, receive_.data(), receive_start_);

  came_.clear();
  std::int64_t first = rows;  // the rows of each sender follow those of the sender before
  for (std::size_t shard = 0; shard < received_.size(); ++shard) {
    const Counts& counts = received_[shard];
    if (counts.slots == 0) continue;
    const std::byte* from = receive_.data() + receive_start_[shard];
    const std::size_t before = came_.size();
    came_.resize(before + static_cast<std::size_t>(counts.slots));
    const std::size_t tag_bytes = static_cast<std::size_t>(counts.slots) * sizeof(SlotTag);
    std::memcpy(came_.data() + before, from, tag_bytes);
    for (std::size_t slot = before; slot < came_.size(); ++slot) came_[slot].row += static_cast<std::int32_t>(first);
    backend_.upload(x + first * row_bytes_, from + tag_bytes, static_cast<std::size_t>(counts.rows * row_bytes_));
    first += counts.rows;
  }
  return came_;
}

std::int64_t ExpertExchange::sent_slots() const {
  std::int64_t slots = 0;
  for (const Counts& counts : sent_) slots += counts.slots;
  return slots;
}

/// A message of a collect: the norms of its slots, their largest magnitudes, then their rows of f.
void ExpertExchange::all_collect(std::span<const std::int32_t> expert, std::span<const std::int32_t> came,
                                 std::int64_t computed, std::byte* f, float* norm, float* max_abs,
                                 std::span<std::int32_t> position) {
  const auto message_bytes = [&](const Counts& counts) {
    return counts.slots * (2 * static_cast<std::int64_t>(sizeof(float)) + row_bytes_);
  };
  set_starts(send_start_, [&](std::size_t shard) { return message_bytes(received_[shard]); });
  set_starts(receive_start_, [&](std::size_t shard) { return message_bytes(sent_[shard]); });
  reserve_messages();

  constexpr auto kFloatBytes = static_cast<std::int64_t>(sizeof(float));
  const std::int32_t* places = came.data();
  for (std::size_t shard = 0; shard < received_.size(); ++shard) {
    const std::int64_t slots = received_[shard].slots;
    std::byte* const norms = send_.data() + send_start_[shard];
    std::byte* const maxima = norms + slots * kFloatBytes;
    backend_.download_rows(norms, norm, places, slots, kFloatBytes);
    backend_.download_rows(maxima, max_abs, places, slots, kFloatBytes);
    backend_.download_rows(maxima + slots * kFloatBytes, f, places, slots, row_bytes_);
    places += slots;
  }
  backend_.synchronize();
  link_.all_exchange(send_.data(), send_start_, receive_.data(), receive_start_);

  std::int64_t place = computed;
  for (std::size_t shard = 0; shard < sent_.size(); ++shard) {
    const std::int64_t slots = sent_[shard].slots;
    if (slots == 0) continue;
    const auto float_bytes = static_cast<std::size_t>(slots) * sizeof(float);
    const std::byte* from = receive_.data() + receive_start_[shard];
    backend_.upload(norm + place, from, float_bytes);
    backend_.upload(max_abs + place, from + float_bytes, float_bytes);
    backend_.upload(f + place * row_bytes_, from + 2 * float_bytes, static_cast<std::size_t>(slots * row_bytes_));
    place += slots;
  }
  place_returned(expert, parcels_, experts_, computed, position);
}

}  // namespace reap
