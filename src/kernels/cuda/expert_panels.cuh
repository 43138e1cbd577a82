#pragma once

#include <cstdint>

#include "kernels/cuda/expert_product.hpp"
#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/mma.cuh"

// The two operands of a tile product on their way into shared memory: panels of 64 elements of depth by 128 or more
// rows, bf16, in the swizzled layout of fragments.hpp, for blocks of 256 threads. What lies past the slots, columns or
// depth becomes zero. Each operand has a ring of panels, one per step of depth; load(step) past the last step does
// nothing.

namespace reap::cuda {

constexpr int kPanelThreads = 256;
constexpr int kPanelSlots = 128;  // rows of the input
constexpr int kPanelDepth = 64;
constexpr int kPanelChunks = kPanelDepth / kChunkElements;
constexpr int panel_bytes(int rows) { return rows * kPanelDepth * 2; }

__host__ __device__ constexpr int panel_steps(int depth) { return (depth + kPanelDepth - 1) / kPanelDepth; }

/// Rows of the input, one per slot, gathered by index. Thread t copies chunk t % 8 of rows t / 8 + 32 i.
template <int Stages>
class InputPanels {
 public:
  static constexpr int kBytes = Stages * panel_bytes(kPanelSlots);  // of shared memory

  __device__ InputPanels(const ExpertProduct& product, const ExpertTile& tile, std::uint32_t shared)
      : shared_{shared}, depth_{product.depth}, aligned_{product.input_aligned} {
    const int thread = static_cast<int>(threadIdx.x);
    column_ = thread % kPanelChunks * kChunkElements;
    const int first = thread / kPanelChunks;
    place_ = swizzled<kPanelChunks>(first, thread % kPanelChunks);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int local = first + i * kRowStep;
      exists_[i] = local < tile.slots;
      const std::int64_t slot = tile.slot + (exists_[i] ? local : 0);
      const std::int64_t row = product.row == nullptr ? slot : product.row[slot];
      row_[i] = static_cast<const __nv_bfloat16*>(product.input) + row * product.input_stride + column_;
    }
  }

  __device__ void load(int step) const {
    const int left = depth_ - step * kPanelDepth - column_;
    if (left + column_ <= 0) return;
    const std::uint32_t to = panel(step) + place_;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const auto* const from = left > 0 ? row_[i] + step * kPanelDepth : row_[i] - column_;
      copy_chunk(to + i * kRowStep * kPanelDepth * 2, from, exists_[i] ? left : 0, aligned_);
    }
  }

  __device__ std::uint32_t panel(int step) const { return shared_ + step % Stages * panel_bytes(kPanelSlots); }

 private:
  static constexpr int kRowStep = kPanelThreads / kPanelChunks;
  static constexpr int kRows = kPanelSlots / kRowStep;

  std::uint32_t shared_;
  int depth_;
  bool aligned_;
  int column_;
  int place_;
  bool exists_[kRows];
  const __nv_bfloat16* row_[kRows];
};

/// Weights held as bf16. Tile row r makes column weight_row(Matrices, r); thread t copies as for the input.
template <int Matrices, int Rows, int Stages>
class Bf16Panels {
 public:
  static constexpr int kBytes = Stages * panel_bytes(Rows);

  __device__ Bf16Panels(const ExpertProduct& product, const ExpertTile& tile, std::uint32_t shared)
      : shared_{shared}, depth_{product.depth}, aligned_{product.weight_aligned} {
    const int thread = static_cast<int>(threadIdx.x);
    offset_ = thread % kPanelChunks * kChunkElements;
    const int first = thread / kPanelChunks;
    place_ = swizzled<kPanelChunks>(first, thread % kPanelChunks);
    const WeightRow row = weight_row(Matrices, first);
    column_ = tile.column * (Rows / Matrices) + row.column;
    columns_ = product.columns;
    weight_ = static_cast<const __nv_bfloat16*>(product.weight[row.matrix][tile.expert]);
  }

  __device__ void load(int step) const {
    const int left = depth_ - step * kPanelDepth - offset_;
    if (left + offset_ <= 0) return;
    const std::uint32_t to = panel(step) + place_;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int column = column_ + i * kColumnStep;
      const bool exists = column < columns_ && left > 0;
      const auto* const from =
          exists ? weight_ + static_cast<std::int64_t>(column) * depth_ + step * kPanelDepth + offset_ : weight_;
      copy_chunk(to + i * kRowStep * kPanelDepth * 2, from, exists ? left : 0, aligned_);
    }
  }

  /// Before the first step, once load(0) and load(1) have been committed.
  __device__ void begin() const {}
  /// In step `step`, once everything that was committed two steps before has landed.
  __device__ void advance(int step) const { load(step + 2); }
  __device__ std::uint32_t panel(int step) const { return shared_ + step % Stages * panel_bytes(Rows); }

 private:
  static constexpr int kRowStep = kPanelThreads / kPanelChunks;
  static constexpr int kColumnStep = kRowStep / Matrices;
  static constexpr int kRows = Rows / kRowStep;

  std::uint32_t shared_;
  int depth_;
  bool aligned_;
  int offset_;
  int place_;
  int column_;
  int columns_;
  const __nv_bfloat16* weight_;
};

/// Weights held as f8_e4m3. Codes are copied as they are, into a ring of two, and expanded into a ring of `Stages` bf16
/// panels one step before their use. A thread expands just the codes that it copied: thread t those of columns 16 (t %
/// 4) and on, of rows t / 4 + 64 i.
template <int Matrices, int Rows, int Stages>
class F8Panels {
 public:
  static constexpr int kBytes = Stages * panel_bytes(Rows) + 2 * Rows * kPanelDepth;

  __device__ F8Panels(const ExpertProduct& product, const ExpertTile& tile, std::uint32_t shared)
      : shared_{shared},
        codes_{shared + Stages * panel_bytes(Rows) + threadIdx.x * kChunkBytes},
        depth_{product.depth},
        aligned_{product.weight_aligned} {
    const int thread = static_cast<int>(threadIdx.x);
    piece_ = thread % kPieces;
    tile_row_ = thread / kPieces;
    const WeightRow row = weight_row(Matrices, tile_row_);
    column_ = tile.column * (Rows / Matrices) + row.column;
    columns_ = product.columns;
    scale_cols_ = product.scale_cols;
    weight_ = static_cast<const std::uint8_t*>(product.weight[row.matrix][tile.expert]);
    scale_ = product.scale[row.matrix][tile.expert];
  }

  __device__ void load(int step) const {
    const int left = depth_ - step * kPanelDepth - piece_ * kPieceCodes;
    if (left + piece_ * kPieceCodes <= 0) return;
    const std::uint32_t to = codes_ + step % 2 * kCodeBytes;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int column = column_ + i * kColumnStep;
      const bool exists = column < columns_ && left > 0;
      const auto* const from =
          exists ? weight_ + static_cast<std::int64_t>(column) * depth_ + step * kPanelDepth + piece_ * kPieceCodes
                 : weight_;
      copy_chunk(to + i * kPanelThreads * kChunkBytes, from, exists ? left : 0, aligned_);
    }
  }

  __device__ void begin() const {
    wait_for_copies<1>();
    expand(0);
    load(2);
    commit_copies();
  }
  __device__ void advance(int step) const {
    expand(step + 1);
    load(step + 3);
  }
  __device__ std::uint32_t panel(int step) const { return shared_ + step % Stages * panel_bytes(Rows); }

 private:
  static constexpr int kPieceCodes = kChunkBytes;
  static constexpr int kPieces = kPanelDepth / kPieceCodes;
  static constexpr int kRowStep = kPanelThreads / kPieces;
  static constexpr int kColumnStep = kRowStep / Matrices;
  static constexpr int kRows = Rows / kRowStep;
  static constexpr int kCodeBytes = Rows * kPanelDepth;
  static_assert(kScaleBlock % kPanelDepth == 0, "one scale per row and step");

  __device__ void expand(int step) const {
    const int square = step * kPanelDepth / static_cast<int>(kScaleBlock);
    if (step * kPanelDepth >= depth_) return;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int column = column_ + i * kColumnStep;
      const int block = (column < columns_ ? column : 0) / static_cast<int>(kScaleBlock);
      const float scale = scale_[static_cast<std::int64_t>(block) * scale_cols_ + square];
      std::uint32_t codes[4], chunk[4];
      load_chunk(codes, codes_ + step % 2 * kCodeBytes + i * kPanelThreads * kChunkBytes);
      const int row = tile_row_ + i * kRowStep;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        dequantise(codes[2 * half], codes[2 * half + 1], scale, chunk);
        store_chunk(panel(step) + swizzled<kPanelChunks>(row, 2 * piece_ + half), chunk);
      }
    }
  }

  std::uint32_t shared_;
  std::uint32_t codes_;
  int depth_;
  bool aligned_;
  int piece_;
  int tile_row_;
  int column_;
  int columns_;
  int scale_cols_;
  const std::uint8_t* weight_;
  const float* scale_;
};

}  // namespace reap::cuda
