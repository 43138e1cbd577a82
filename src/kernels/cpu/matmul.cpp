#include <algorithm>
#include <cstring>

#include "kernels/check.hpp"
#include "kernels/cpu/products.hpp"
#include "kernels/round_up.hpp"

namespace reap::cpu {
namespace {

void store_rows(const float* tile, std::int64_t tile_width, std::int64_t rows, std::int64_t width, float* out,
                std::int64_t out_width, bool add) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* const from = tile + row * tile_width;
    float* const to = out + row * out_width;
    if (add) {
      for (std::int64_t i = 0; i < width; ++i) to[i] += from[i];
    } else {
      std::memcpy(to, from, static_cast<std::size_t>(width) * sizeof(float));
    }
  }
}

}  // namespace

void matmul(const Run& run, Workers& workers, const RowSource& x, std::int64_t rows, const PackedWeight& w, float* out,
            bool add) {
  REAP_CHECK(x.cols == w.cols(), "rows of {} times a weight of [{}, {}]", x.cols, w.rows(), w.cols());
  REAP_CHECK(x.dtype == DType::bf16 || w.product(0).dtype() == DType::f32, "f32 rows times a weight packed for bf16");
  if (rows == 0) return;
  workers.prepare(0, w);
  const std::int64_t chunks = ceil_div(rows, kChunkRows);
#pragma omp parallel num_threads(run.threads) if (chunks * w.panels() > 1)
  {
    Worker& worker = workers.enter();
#pragma omp for collapse(2) schedule(dynamic)
    for (std::int64_t panel = 0; panel < w.panels(); ++panel) {
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        const TileProduct& product = w.product(panel);
        const TileProduct::Call multiply = worker.call(0, w, panel);
        const std::int64_t end = std::min(rows, (chunk + 1) * kChunkRows);
        for (std::int64_t first = chunk * kChunkRows; first < end; first += product.tile()) {
          const std::int64_t count = std::min(product.tile(), end - first);
          multiply(worker.tile(run, x, first, count, product));
          store_rows(worker.out(0), product.rows(), count, w.panel_rows(panel),
                     out + first * w.rows() + panel * PackedWeight::kPanelRows, w.rows(), add);
        }
      }
    }
  }
}

}  // namespace reap::cpu
