#include "driver/quantize_size.hpp"

#include "shard/families.hpp"

namespace reap {
namespace {

std::int64_t bytes_of(DType dtype, const std::vector<std::int64_t>& shape) {
  auto bytes = static_cast<std::int64_t>(size_of(dtype));
  for (const std::int64_t extent : shape) bytes *= extent;
  return bytes;
}

bool is_rounded(const QuantizeOptions& options, Part part) {
  QuantizeOptions all = options;
  all.exclude.clear();
  return rounding_of(all, part, "layer.weight").has_value();
}

}  // namespace

std::int64_t quantised_bytes(const Model& model, std::int64_t kept, const QuantizeOptions& options) {
  const std::int64_t experts = model.router.experts;
  const DType other = model.embedding_element_bytes == 4 ? DType::f32 : DType::bf16;
  std::int64_t bytes = 0;
  for (const TensorKind& kind : tensor_kinds(model)) {
    const bool is_router = kind.part == Part::gate || kind.part == Part::gate_bias;
    const bool is_expert = kind.part == Part::w1 || kind.part == Part::w3 || kind.part == Part::w2;
    const std::int64_t count = is_expert ? kind.count / experts * kept : kind.count;
    if (is_router) {
      bytes += count * bytes_of(DType::f32, kind.shape) / experts * kept;
    } else if (is_rounded(options, kind.part)) {
      for (const W4Tensor& part :
           w4_tensors(options.format, kind.shape[0], kind.shape[1], options.group, DType::bf16)) {
        bytes += count * bytes_of(part.dtype, part.shape);
      }
    } else {
      bytes += count * bytes_of(other, kind.shape);
    }
  }
  return bytes;
}

}  // namespace reap
