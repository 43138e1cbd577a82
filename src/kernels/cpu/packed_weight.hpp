#pragma once

#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cpu/tile_product.hpp"
#include "kernels/cpu/vector_ops.hpp"

namespace reap::cpu {

/// A weight matrix cut into panels of rows, each packed for one TileProduct. Elements keep their stored type where it
/// is smaller than the product's, and are then expanded panel by panel on their way into the product.
class PackedWeight final : public Weight {
 public:
  /// Rows of a panel. Wide enough that reading a tile of x is cheap beside multiplying it, narrow enough that an
  /// expanded panel stays near the core and that there are panels for every thread.
  static constexpr std::int64_t kPanelRows = 256;

  /// @param product  type of the products, f32 or bf16
  /// @param round    round weights to bf16 even where products are f32
  PackedWeight(const WeightSource& source, DType product, bool round, TileProducts& products, const VectorOps& ops,
               int threads);

  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  std::int64_t bytes() const override { return data_.bytes() + scale_.bytes(); }

  std::int64_t panels() const { return static_cast<std::int64_t>(panels_.size()); }
  std::int64_t panel_rows(std::int64_t panel) const;  // without padding
  const TileProduct& product(std::int64_t panel) const { return *panels_[static_cast<std::size_t>(panel)]; }
  /// The panel in the product's type and order: where it lies, or expanded into `room` [cols * rows of the product].
  const void* expanded(std::int64_t panel, void* room) const;
  bool in_place() const { return kind_ == Kind::plain; }

 private:
  enum class Kind : std::uint8_t {
    plain,        // of the product's type
    bf16_in_f32,  // bf16 in memory, product in f32
    f16_in_f32,   // f16 in memory, product in f32
    f8,           // scaled codes
  };
  static Kind kind_for(const WeightSource& source, DType product, bool round);
  void pack_panel(const WeightSource& source, std::int64_t panel);
  void pack_scales(const WeightSource& source, std::int64_t panel);
  std::int64_t panel_elements(std::int64_t panel) const { return product(panel).cols() * product(panel).rows(); }
  std::int64_t panel_start(std::int64_t panel) const;

  std::int64_t rows_;
  std::int64_t cols_;
  Kind kind_;
  bool round_;
  const VectorOps* ops_;
  std::vector<std::shared_ptr<const TileProduct>> panels_;
  std::int64_t stored_size_;  // bytes of a stored element
  Buffer<std::byte> data_;    // panel after panel
  std::int64_t run_ = 0;      // f8: packed elements that share a scale
  Buffer<float> scale_;       // f8: [elements / run]
};

}  // namespace reap::cpu
