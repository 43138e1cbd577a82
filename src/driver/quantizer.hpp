#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "driver/importance.hpp"
#include "driver/output_plan.hpp"
#include "kernels/backend.hpp"
#include "shard/checkpoint.hpp"

namespace reap {

/// Computes the tensors of an output that are not copies. Several threads may use it: they read at the same time, and
/// take turns on the device.
class Quantizer {
 public:
  /// @param importance  what searches for scales weigh errors with; null: all inputs count alike
  explicit Quantizer(std::unique_ptr<Backend> backend, std::shared_ptr<const ImportanceSource> importance = nullptr)
      : backend_{std::move(backend)}, importance_{std::move(importance)} {}

  /// Digest of the importance file; "" when there is none.
  std::string importance() const { return importance_ ? importance_->digest() : ""; }

  /// Weight `source` rounded or expanded, as the file holds it.
  class Result {
   public:
    /// The bytes of one of its tensors.
    const std::vector<std::byte>& bytes(W4Piece piece) const { return pieces_[static_cast<std::size_t>(piece)]; }

   private:
    friend class Quantizer;
    std::vector<std::byte> pieces_[static_cast<std::size_t>(W4Piece::shape) + 1];
  };

  /// @param how  of any of its tensors: all are made
  /// @throws Error(numerics) naming the tensor, Error(io)
  Result compute(const Checkpoint& checkpoint, const Tensor& weight, const Derivation& how);

 private:
  std::optional<Importance> importance_of(const Tensor& weight, const QuantizeSpec& rounding) const;
  std::shared_ptr<const Feedback> feedback_of(const Tensor& weight, const QuantizeSpec& rounding) const;

  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const ImportanceSource> importance_;
  std::mutex device_;
};

/// The derived tensor that was asked for last, and its sisters: they follow one another in a file.
class DerivedTensors {
 public:
  DerivedTensors(Quantizer* quantizer, const Checkpoint& source) : quantizer_{quantizer}, source_{source} {}
  /// The bytes of a derived tensor.
  const std::vector<std::byte>& bytes(const Tensor& weight, const Derivation& how);

 private:
  Quantizer* quantizer_;
  const Checkpoint& source_;
  const Tensor* weight_ = nullptr;
  Quantizer::Result result_;
};

}  // namespace reap
