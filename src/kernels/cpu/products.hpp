#pragma once

#include "kernels/cpu/worker.hpp"

// The operations of the CPU backend that are matrix products. Arguments are those of kernels/backend.hpp.
namespace reap::cpu {

void matmul(const Run& run, Workers& workers, const RowSource& x, std::int64_t rows, const PackedWeight& w, float* out,
            bool add);

/// The routed experts; keeps what lies between the two layers of products from call to call.
class Experts {
 public:
  void run(const Run& run, Workers& workers, const void* x, const std::int32_t* row,
           std::span<const std::int64_t> start, std::span<const ExpertWeights> weights, void* f, float* norm,
           float* max_abs, const SquareSums& inner);

 private:
  /// One panel of one expert over some of its slots.
  struct Task {
    std::size_t expert;
    std::int64_t panel;
    std::int64_t first_slot;
    std::int64_t slots;
    std::int64_t first_place;  // the first slot's row of inner_: every expert starts on a tile
  };
  /// One task per panel and at most `chunk_rows` slots of an expert.
  static std::vector<Task> tasks_over(std::span<const std::int64_t> start, std::int64_t panels, std::int64_t tile,
                                      std::int64_t chunk_rows);

  void gate_and_up(const Run& run, Worker& worker, const Task& task, const ExpertWeights& weights, const RowSource& x);
  /// Adds the squares of what enters w2 over the slots of an expert, those of one panel of w1.
  bool add_squares(const Run& run, const PackedWeight& w1, const PackedWeight& w2, const Task& task,
                   std::int64_t* sums) const;
  void down(const Run& run, Worker& worker, const Task& task, const ExpertWeights& weights, std::byte* f);

  Buffer<std::byte> inner_;          // [places, cols of the second product] of that product's type
  Buffer<double> panel_square_sum_;  // [slots, panels of w2]
  Buffer<float> panel_max_;          // [slots, panels of w2]
};

}  // namespace reap::cpu
