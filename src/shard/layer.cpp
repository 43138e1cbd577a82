#include "shard/layer.hpp"

#include <cstring>
#include <optional>
#include <span>

#include "kernels/check.hpp"
#include "shard/families.hpp"
#include "shard/w4_weight.hpp"

namespace reap {
namespace {

/// Brings the tensors of one layer (or of none, layer -1) to the backend. At most one tensor at a time is in host
/// memory besides.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const Model& model, std::int64_t layer, Backend& backend)
      : checkpoint_{checkpoint}, model_{model}, layer_{static_cast<std::int32_t>(layer)}, backend_{backend} {}

  /// A vector or table as fp32.
  Buffer<float> floats(Part part) {
    const Tensor& tensor = read(part);
    const std::vector<float> values = to_floats(tensor.dtype);
    return upload<float>(values);
  }

  /// A table in its stored type.
  Buffer<std::byte> raw(Part part, DType& dtype) {
    dtype = read(part).dtype;
    return upload<std::byte>(data_);
  }

  /// Bytes of some tensors as they will be held.
  std::int64_t bytes_of(std::initializer_list<Part> parts, std::int64_t expert = -1) const {
    std::int64_t bytes = 0;
    for (const Part part : parts) {
      const std::string name = tensor_name(model_, {part, layer_, static_cast<std::int32_t>(expert)});
      if (is_w4(checkpoint_, model_, name)) {
        const std::int64_t element = backend_.compute() == Compute::bf16 ? sizeof(bf16) : sizeof(float);
        bytes += element * w4_elements(checkpoint_, model_, name);
        continue;
      }
      const Tensor& tensor = find(part, expert, false);
      const bool halves = tensor.dtype == DType::f32 && backend_.compute() == Compute::bf16 && part != Part::gate;
      bytes += static_cast<std::int64_t>(halves ? tensor.bytes / 2 : tensor.bytes);
      if (tensor.dtype == DType::f8_e4m3) bytes += static_cast<std::int64_t>(find(part, expert, true).bytes);
    }
    return bytes;
  }

  /// Rows of a table in its stored type, in the order of `rows`.
  Buffer<std::byte> raw_rows(Part part, std::span<const std::int32_t> rows, DType& dtype) {
    const Tensor& tensor = find(part, -1, false);
    dtype = tensor.dtype;
    const std::size_t row_bytes = tensor.bytes / static_cast<std::size_t>(tensor.shape[0]);
    data_.resize(rows.size() * row_bytes);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      checkpoint_.read(tensor, static_cast<std::uint64_t>(rows[i]) * row_bytes,
                       std::span(data_).subspan(i * row_bytes, row_bytes));
    }
    return upload<std::byte>(data_);
  }

  std::unique_ptr<Weight> weight(Part part, Compute precision, std::int64_t expert = -1) {
    const std::string name = tensor_name(model_, {part, layer_, static_cast<std::int32_t>(expert)});
    if (is_w4(checkpoint_, model_, name)) return expanded(name, precision);
    const Tensor& tensor = find(part, expert, false);
    REAP_CHECK(tensor.shape.size() == 2, "tensor {} has {} axes", tensor.name, tensor.shape.size());
    if (tensor.dtype == DType::f8_e4m3) read_scales(part, expert);
    const auto read = [&, place = scope_path()](std::uint64_t begin, std::span<std::byte> into) {
      std::optional<Scope> scope;  // in a thread of the backend's
      if (scope_path() != place) scope.emplace(place);
      checkpoint_.read(tensor, begin, into);
    };
    return backend_.read_weight({.data = nullptr,
                                 .dtype = tensor.dtype,
                                 .rows = tensor.shape[0],
                                 .cols = tensor.shape[1],
                                 .scale_inv = tensor.dtype == DType::f8_e4m3 ? scales_.data() : nullptr},
                                read, precision);
  }

 private:
  std::unique_ptr<Weight> expanded(const std::string& name, Compute precision) {
    const ExpandedWeight weight = read_w4(checkpoint_, model_, name);
    const auto* const data = reinterpret_cast<const std::byte*>(weight.values.data());
    return backend_.pack({data, DType::f32, weight.rows, weight.cols, nullptr}, precision);
  }

  const Tensor& find(Part part, std::int64_t expert, bool scale) const {
    return checkpoint_.at(tensor_name(model_, {part, layer_, static_cast<std::int32_t>(expert), scale}));
  }

  const Tensor& read(Part part) {
    const Tensor& tensor = find(part, -1, false);
    data_.resize(tensor.bytes);
    checkpoint_.read(tensor, 0, data_);
    return tensor;
  }

  void read_scales(Part part, std::int64_t expert) {
    const Tensor& tensor = find(part, expert, true);
    scales_.resize(tensor.bytes / sizeof(float));
    checkpoint_.read(tensor, 0, std::as_writable_bytes(std::span(scales_)));
  }

  std::vector<float> to_floats(DType dtype) const {
    std::vector<float> values(data_.size() / size_of(dtype));
    if (dtype == DType::f32) {
      std::memcpy(values.data(), data_.data(), data_.size());
      return values;
    }
    REAP_CHECK(dtype == DType::bf16 || dtype == DType::f16, "dtype {}", name_of(dtype));
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, data_.data() + i * sizeof(bits), sizeof(bits));  // the file promises no alignment
      values[i] = dtype == DType::bf16 ? to_float(bf16{bits}) : f16_to_float(bits);
    }
    return values;
  }

  template <class T>
  Buffer<T> upload(std::span<const T> values) {
    Buffer<T> buffer(backend_.memory(), static_cast<std::int64_t>(values.size()));
    backend_.upload(buffer.data(), values.data(), values.size_bytes());
    return buffer;
  }

  const Checkpoint& checkpoint_;
  const Model& model_;
  std::int32_t layer_;
  Backend& backend_;
  std::vector<std::byte> data_;  // of the tensor read last; memory is reused
  std::vector<float> scales_;
};

}  // namespace

std::int64_t LayerWeights::bytes() const {
  std::int64_t bytes = input_norm.bytes() + post_norm.bytes() + q_norm.bytes() + k_norm.bytes() + gate_bias.bytes();
  for (const Weight* weight : {q.get(), k.get(), v.get(), o.get(), gate.get()}) bytes += weight->bytes();
  for (const std::unique_ptr<Weight>& weight : w) bytes += weight->bytes();
  return bytes;
}

LayerWeights load_layer(const Checkpoint& checkpoint, const Model& model, std::int64_t layer, const Range& experts,
                        Backend& backend, const std::function<void(std::int64_t bytes)>& before) {
  const Compute compute = backend.compute();
  Loader load(checkpoint, model, layer, backend);
  if (before) {
    before(load.bytes_of({Part::input_norm, Part::post_norm, Part::q_norm, Part::k_norm, Part::q, Part::k, Part::v,
                          Part::o, Part::gate, Part::gate_bias}));
  }
  LayerWeights weights;
  weights.input_norm = load.floats(Part::input_norm);
  weights.post_norm = load.floats(Part::post_norm);
  weights.q_norm = load.floats(Part::q_norm);
  weights.k_norm = load.floats(Part::k_norm);
  weights.q = load.weight(Part::q, compute);
  weights.k = load.weight(Part::k, compute);
  weights.v = load.weight(Part::v, compute);
  weights.o = load.weight(Part::o, compute);
  weights.gate = load.weight(Part::gate, Compute::fp32);
  weights.gate_bias = load.floats(Part::gate_bias);
  weights.w.reserve(3 * static_cast<std::size_t>(experts.size()));
  weights.experts.reserve(static_cast<std::size_t>(experts.size()));
  for (std::int64_t expert = experts.begin; expert < experts.end; ++expert) {
    if (before) before(load.bytes_of({Part::w1, Part::w3, Part::w2}, expert));
    const auto own = [&](Part part) { return weights.w.emplace_back(load.weight(part, compute, expert)).get(); };
    const Weight* w1 = own(Part::w1);
    const Weight* w3 = own(Part::w3);
    const Weight* w2 = own(Part::w2);
    weights.experts.push_back({w1, w3, w2});
  }
  backend.synchronize();  // another backend of the device may use them from here on
  return weights;
}

Embedding load_embedding(const Checkpoint& checkpoint, const Model& model, Backend& backend) {
  Embedding embedding{};
  embedding.table = Loader(checkpoint, model, -1, backend).raw(Part::embedding, embedding.dtype);
  return embedding;
}

Embedding load_embedding_rows(const Checkpoint& checkpoint, const Model& model, std::span<const std::int32_t> tokens,
                              Backend& backend) {
  Embedding embedding{};
  embedding.table = Loader(checkpoint, model, -1, backend).raw_rows(Part::embedding, tokens, embedding.dtype);
  return embedding;
}

Head load_head(const Checkpoint& checkpoint, const Model& model, Backend& backend) {
  Loader load(checkpoint, model, -1, backend);
  Head head;
  head.norm = load.floats(Part::final_norm);
  head.projection = load.weight(Part::head, backend.compute());
  return head;
}

}  // namespace reap
