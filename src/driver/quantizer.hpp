#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "driver/output_plan.hpp"
#include "kernels/backend.hpp"
#include "shard/checkpoint.hpp"

namespace reap {

/// Computes the tensors of an output that are not copies. Several threads may use it: they read at the same time, and
/// take turns on the device.
class Quantizer {
 public:
  explicit Quantizer(std::unique_ptr<Backend> backend) : backend_{std::move(backend)} {}

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
  std::unique_ptr<Backend> backend_;
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
