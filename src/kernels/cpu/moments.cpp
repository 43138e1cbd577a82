#include <algorithm>

#include "kernels/buffer.hpp"
#include "kernels/cpu/ops.hpp"
#include "kernels/round_up.hpp"

namespace reap::cpu {
namespace {

// Rows whose products are added in fp32 before they become integers. Part of what the bits depend on.
constexpr std::int64_t kChunkRows = 512;

/// Some rows of activations as fp32, in panels of kMomentPanel channels; what the last one lacks is zero.
class Panels {
 public:
  Panels(const Run& run, std::int64_t width, std::int64_t rows)
      : run_{run},
        width_{width},
        most_{rows},
        values_{host_memory, ceil_div(width, kMomentPanel) * rows * kMomentPanel} {}

  std::int64_t count() const { return ceil_div(width_, kMomentPanel); }
  const float* at(std::int64_t panel) const { return values_.data() + panel * most_ * kMomentPanel; }

  /// To be called by all threads of a team.
  void fill(const void* x, std::int64_t first, std::int64_t rows) {
#pragma omp for schedule(static)
    for (std::int64_t panel = 0; panel < count(); ++panel) {
      const std::int64_t channels = std::min(kMomentPanel, width_ - panel * kMomentPanel);
      float* to = values_.data() + panel * most_ * kMomentPanel;
      for (std::int64_t row = 0; row < rows; ++row, to += kMomentPanel) {
        const std::int64_t from = (first + row) * width_ + panel * kMomentPanel;
        if (run_.compute == Compute::bf16) {
          run_.vector.bf16_to_f32(static_cast<const bf16*>(x) + from, channels, to);
        } else {
          std::copy_n(static_cast<const float*>(x) + from, channels, to);
        }
        std::fill(to + channels, to + kMomentPanel, 0.0F);
      }
    }
  }

 private:
  const Run& run_;
  std::int64_t width_, most_;
  Buffer<float> values_;
};

/// Two panels of one block whose channels are multiplied.
struct Tile {
  std::int64_t i, j;  // j <= i
};

std::vector<Tile> tiles_of(std::int64_t panels) {
  constexpr std::int64_t kBlockPanels = kMomentBlock / kMomentPanel;
  std::vector<Tile> tiles;
  for (std::int64_t i = 0; i < panels; ++i) {
    for (std::int64_t j = i / kBlockPanels * kBlockPanels; j <= i; ++j) tiles.push_back({i, j});
  }
  return tiles;
}

/// Adds what the triangles keep of a tile.
bool add(const Run& run, const Tile& tile, std::int64_t width, const float* products, std::int64_t* sums) {
  const std::int64_t first = tile.i * kMomentPanel;
  const std::int64_t block = first / kMomentBlock;
  std::int64_t* const own = sums + block * triangle(kMomentBlock);
  const std::int64_t column = tile.j * kMomentPanel - block * kMomentBlock;
  bool good = true;
  for (std::int64_t i = 0; i < std::min(kMomentPanel, width - first); ++i) {
    const std::int64_t row = first + i - block * kMomentBlock;
    const std::int64_t kept = std::min(kMomentPanel, row + 1 - column);
    std::int64_t* const to = own + triangle(row) + column;
    if (kept == kMomentPanel) {
      good = run.vector.add_moments(products + i * kMomentPanel, to) && good;
      continue;
    }
    std::int64_t whole[kMomentPanel] = {};
    std::copy_n(to, kept, whole);
    good = run.vector.add_moments(products + i * kMomentPanel, whole) && good;
    std::copy_n(whole, kept, to);
  }
  return good;
}

}  // namespace

void accumulate_moments(const Run& run, const void* x, std::int64_t rows, std::int64_t width, const MomentSums& to) {
  Panels panels(run, width, std::min(rows, kChunkRows));
  const std::vector<Tile> tiles = tiles_of(panels.count());
  bool good = true;
#pragma omp parallel num_threads(run.threads) reduction(&& : good)
  {
    alignas(64) float products[kMomentPanel * kMomentPanel];
    for (std::int64_t first = 0; first < rows; first += kChunkRows) {
      const std::int64_t count = std::min(kChunkRows, rows - first);
      panels.fill(x, first, count);
#pragma omp for schedule(dynamic)
      for (const Tile& tile : tiles) {
        run.vector.moment_tile(panels.at(tile.i), panels.at(tile.j), count, products);
        good = add(run, tile, width, products, to.sums) && good;
      }
    }
  }
  if (!good) *to.bad = 1;
}

}  // namespace reap::cpu
