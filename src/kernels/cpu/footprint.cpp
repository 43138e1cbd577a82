#include "kernels/cpu_footprint.hpp"

#include <algorithm>

#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/packed_weight.hpp"
#include "kernels/cpu/worker.hpp"
#include "kernels/round_up.hpp"

namespace reap {
namespace {

using cpu::PackedWeight;
using cpu::TileProduct;

// Packed elements that share a scale (PackedWeight::run_), as oneDNN 2.6 orders them: its AVX2 kernels want narrower
// blocks.
std::int64_t scale_run(CpuIsa isa) { return isa == CpuIsa::avx2 ? 64 : 1024; }

std::int64_t padded(std::int64_t size) { return round_up(size, TileProduct::kAlign); }

std::int64_t bytes(DType dtype) { return static_cast<std::int64_t>(size_of(dtype)); }

}  // namespace

std::int64_t CpuFootprint::weight(DType stored, std::int64_t rows, std::int64_t cols, Compute precision) const {
  const std::int64_t elements = padded(rows) * padded(cols);
  if (stored == DType::f8_e4m3) return elements + 4 * elements / scale_run(settle_isa(isa));
  return elements * std::min(bytes(stored), bytes(activation_dtype(precision)));
}

std::int64_t CpuFootprint::working(const Layer& layer) const {
  const CpuIsa settled = settle_isa(isa);
  const VectorOps& vector = vector_ops(settled);
  const DType product = compute == Compute::bf16 ? bf16_product_dtype(settled) : DType::f32;
  const std::int64_t tile = row_tile(settled);
  const std::int64_t q = layer.attention.heads * layer.attention.head_dim;
  const std::int64_t widest = padded(std::max({layer.hidden, q, layer.inner}));

  // The router multiplies rows of hidden in f32, whatever the others do.
  const std::int64_t rows = tile * std::max(widest * bytes(product), padded(layer.hidden) * 4);
  const std::int64_t out = 2 * tile * PackedWeight::kPanelRows * 4;
  const std::int64_t expanded = layer.stored == product ? 0 : 2 * widest * PackedWeight::kPanelRows * bytes(product);
  const std::int64_t group = layer.attention.heads / layer.attention.kv_heads;
  const std::int64_t attention = std::max(vector.attention_scratch(group, layer.attention.head_dim), q) * 4;
  const std::int64_t of_thread = rows + out + expanded + attention;

  const std::int64_t places = layer.slots + std::min(layer.slots, layer.experts) * (tile - 1);
  const std::int64_t panels = ceil_div(layer.hidden, PackedWeight::kPanelRows);
  const std::int64_t experts = places * padded(layer.inner) * bytes(product) +
                               layer.slots * panels * static_cast<std::int64_t>(sizeof(double) + sizeof(float));
  return threads * of_thread + experts + layer.positions * layer.attention.rotary_dim * 4;
}

}  // namespace reap
