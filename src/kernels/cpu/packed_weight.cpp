#include "kernels/cpu/packed_weight.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/check.hpp"
#include "kernels/round_up.hpp"

namespace reap::cpu {
namespace {

/// packed[i] = source element order[i], or 0 where there is none. `source` need not be aligned.
template <class T>
void reorder(const std::byte* source, std::int64_t elements, const std::vector<std::int32_t>& order,
             std::byte* packed) {
  auto* const to = reinterpret_cast<T*>(packed);
  for (std::size_t i = 0; i < order.size(); ++i) {
    T element{};
    if (order[i] < elements) std::memcpy(&element, source + static_cast<std::size_t>(order[i]) * sizeof(T), sizeof(T));
    to[i] = element;
  }
}

/// Rounds `count` unaligned f32 or f16 elements to bf16.
void round_to_bf16(const std::byte* source, DType dtype, std::int64_t count, const VectorOps& ops, bf16* to) {
  constexpr std::int64_t kPiece = 1024;
  float wide[kPiece];
  std::uint16_t half[kPiece];
  for (std::int64_t i = 0; i < count; i += kPiece) {
    const std::int64_t piece = std::min(kPiece, count - i);
    const std::byte* const from = source + static_cast<std::size_t>(i) * size_of(dtype);
    std::memcpy(dtype == DType::f16 ? static_cast<void*>(half) : wide, from,
                static_cast<std::size_t>(piece) * size_of(dtype));
    if (dtype == DType::f16) ops.f16_to_f32(half, piece, wide);
    ops.f32_to_bf16(wide, piece, to + i);
  }
}

}  // namespace

PackedWeight::Kind PackedWeight::kind_for(const WeightSource& source, DType product, bool round) {
  switch (source.dtype) {
    case DType::f8_e4m3:
      REAP_CHECK(source.scale_inv != nullptr, "an f8_e4m3 weight without its scales");
      return Kind::f8;
    case DType::bf16:
      return product == DType::f32 ? Kind::bf16_in_f32 : Kind::plain;
    case DType::f16:
      return product == DType::f32 ? (round ? Kind::bf16_in_f32 : Kind::f16_in_f32) : Kind::plain;
    case DType::f32:
      return product == DType::f32 && round ? Kind::bf16_in_f32 : Kind::plain;
    default:
      fail(ExitCode::bug, "a weight of type {}", name_of(source.dtype));
  }
}

PackedWeight::PackedWeight(const WeightSource& source, DType product, bool round, TileProducts& products,
                           const VectorOps& ops, int threads)
    : rows_{source.rows}, cols_{source.cols}, kind_{kind_for(source, product, round)}, round_{round}, ops_{&ops} {
  REAP_CHECK(rows_ > 0 && cols_ > 0, "a weight of [{}, {}]", rows_, cols_);
  const std::int64_t count = ceil_div(rows_, kPanelRows);
  std::int64_t elements = 0;
  for (std::int64_t panel = 0; panel < count; ++panel) {
    panels_.push_back(products.get(product, cols_, round_up(panel_rows(panel), TileProduct::kAlign)));
    elements += panel_elements(panel);
  }
  stored_size_ = kind_ == Kind::f8 ? 1 : kind_ == Kind::plain ? static_cast<std::int64_t>(size_of(product)) : 2;
  data_ = Buffer<std::byte>(host_memory, elements * stored_size_);
  if (kind_ == Kind::f8) {
    run_ = std::min(panels_.front()->scale_run(), panels_.back()->scale_run());
    scale_ = Buffer<float>(host_memory, elements / run_);
  }
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (count > 1)
  for (std::int64_t panel = 0; panel < count; ++panel) {
    pack_panel(source, panel);
    if (kind_ == Kind::f8) pack_scales(source, panel);
  }
}

std::int64_t PackedWeight::panel_rows(std::int64_t panel) const {
  return std::min(kPanelRows, rows_ - panel * kPanelRows);
}

// All panels but the last are alike, so this is also where a panel's elements start, counted in elements.
std::int64_t PackedWeight::panel_start(std::int64_t panel) const {
  return panel * panels_.front()->cols() * panels_.front()->rows();
}

void PackedWeight::pack_panel(const WeightSource& source, std::int64_t panel) {
  const std::vector<std::int32_t>& order = product(panel).order();
  const std::int64_t elements = panel_rows(panel) * cols_;
  const std::byte* from = source.data + static_cast<std::size_t>(panel * kPanelRows * cols_) * size_of(source.dtype);
  std::byte* const to = data_.data() + panel_start(panel) * stored_size_;
  std::vector<bf16> rounded;
  if (stored_size_ == 2 && (source.dtype == DType::f32 || (source.dtype == DType::f16 && kind_ != Kind::f16_in_f32))) {
    rounded.resize(static_cast<std::size_t>(elements));
    round_to_bf16(from, source.dtype, elements, *ops_, rounded.data());
    from = reinterpret_cast<const std::byte*>(rounded.data());
  }
  switch (stored_size_) {
    case 1:
      return reorder<std::uint8_t>(from, elements, order, to);
    case 2:
      return reorder<std::uint16_t>(from, elements, order, to);
    default:
      return reorder<std::uint32_t>(from, elements, order, to);
  }
}

void PackedWeight::pack_scales(const WeightSource& source, std::int64_t panel) {
  const std::vector<std::int32_t>& order = product(panel).order();
  const std::int64_t elements = panel_rows(panel) * cols_;
  const std::int64_t squares_across = ceil_div(cols_, kScaleBlock);
  const std::int64_t runs = panel_elements(panel) / run_;
  float* const to = scale_.data() + panel_start(panel) / run_;
  for (std::int64_t run = 0; run < runs; ++run) {
    const auto begin = order.begin() + run * run_;
    const auto first = std::find_if(begin, begin + run_, [&](std::int32_t element) { return element < elements; });
    if (first == begin + run_) {
      to[run] = 0;  // all padding
      continue;
    }
    const std::int64_t row = panel * kPanelRows + *first / cols_;
    to[run] = source.scale_inv[row / kScaleBlock * squares_across + *first % cols_ / kScaleBlock];
  }
}

const void* PackedWeight::expanded(std::int64_t panel, void* room) const {
  const std::int64_t elements = panel_elements(panel);
  const std::byte* const from = data_.data() + panel_start(panel) * stored_size_;
  auto* const wide = static_cast<float*>(room);
  switch (kind_) {
    case Kind::plain:
      return from;
    case Kind::bf16_in_f32:
      ops_->bf16_to_f32(reinterpret_cast<const bf16*>(from), elements, wide);
      return room;
    case Kind::f16_in_f32:
      ops_->f16_to_f32(reinterpret_cast<const std::uint16_t*>(from), elements, wide);
      return room;
    case Kind::f8:
      break;
  }
  const auto* const codes = reinterpret_cast<const std::uint8_t*>(from);
  const float* const scale = scale_.data() + panel_start(panel) / run_;
  for (std::int64_t begin = 0, end = 0; begin < elements; begin = end) {
    const float factor = scale[begin / run_];
    do {  // runs of one scale in one go
      end += run_;
    } while (end < elements && scale[end / run_] == factor);
    if (product(panel).dtype() == DType::bf16) {
      ops_->f8_to_bf16(codes + begin, end - begin, factor, static_cast<bf16*>(room) + begin);
      continue;
    }
    ops_->f8_to_f32(codes + begin, end - begin, factor, wide + begin);
    if (round_) ops_->round_to_bf16(wide + begin, end - begin, wide + begin);
  }
  return room;
}

}  // namespace reap::cpu
