#include "shard/footprint.hpp"

#include <algorithm>

#include "kernels/cpu_footprint.hpp"
#include "kernels/fields.hpp"
#include "kernels/round_up.hpp"
#include "shard/head.hpp"

namespace reap {
namespace {

// A resident set grows by 3.6 to 4.1 MB more than the tables of a pass, whatever its model (Debian 12, oneDNN 2.6).
constexpr std::int64_t kProgramBytes = std::int64_t{4} << 20;

/// Every sum below is of one rank. Names and orders are those of the code that allocates.
class Arithmetic {
 public:
  Arithmetic(const Model& model, const Grid& grid, const Workload& work)
      : model_{model},
        grid_{grid},
        work_{work},
        backend_{work.compute, work.isa, work.threads},
        stored_{model.fp8                         ? DType::f8_e4m3
                : model.weight_element_bytes == 4 ? DType::f32
                                                  : DType::bf16},
        head_stored_{model.embedding_element_bytes == 4 ? DType::f32 : DType::bf16},
        act_{static_cast<std::int64_t>(size_of(activation_dtype(work.compute)))},
        hidden_{model.hidden},
        q_{model.attention.heads * model.attention.head_dim},
        kv_{model.attention.kv_heads * model.attention.head_dim},
        top_k_{model.router.top_k},
        rows_{work.max_rows()} {}

  /// LayerWeights without its experts.
  std::int64_t dense() const {
    const std::int64_t floats = 2 * hidden_ + q_ + kv_ + model_.router.experts;  // norms, the router's bias
    return 2 * weight(kv_, hidden_) + weight(q_, hidden_) + weight(hidden_, q_) +
           backend_.weight(DType::f32, model_.router.experts, hidden_, Compute::fp32) + 4 * floats;
  }

  std::int64_t expert() const {
    return 2 * weight(model_.expert.inner, hidden_) + weight(hidden_, model_.expert.inner);
  }

  std::int64_t layer() const { return dense() + ceil_div(model_.router.experts, grid_.ep) * expert(); }

  std::int64_t embedding() const { return model_.embedding_element_bytes * model_.vocab * hidden_; }

  /// layer.cpp: a tensor as the file has it. The router's is f32 in the widest case.
  std::int64_t largest_tensor() const {
    const std::int64_t element = model_.fp8 ? 1 : model_.weight_element_bytes;
    return std::max(
        {element * q_ * hidden_, element * model_.expert.inner * hidden_, 4 * model_.router.experts * hidden_});
  }

  /// block.cpp, and what the backend holds for it.
  std::int64_t forward() const {
    const std::int64_t row = (8 + act_ * (1 + grid_.ep)) * hidden_ + (4 + act_) * (q_ + 2 * kv_) + act_ * q_ +
                             4 * model_.router.experts + 4 * kIntegersPerRow;
    // Four indices, with expert shards also three copies on the host, for the slots of the whole group; the gate value;
    // the output with its norm and largest magnitude, with expert shards once more for those that come back.
    const bool shards = grid_.ep > 1;
    const std::int64_t slot = (shards ? 7 : 4) * 4 * grid_.ep + 4 + (shards ? 2 : 1) * place();
    const CpuFootprint::Layer shape{.hidden = hidden_,
                                    .inner = model_.expert.inner,
                                    .attention = model_.attention,
                                    .stored = stored_,
                                    .experts = ceil_div(model_.router.experts, grid_.ep),
                                    .slots = rows_ * top_k_,
                                    .positions = work_.longest_sample};
    return rows_ * (row + top_k_ * slot) + backend_.working(shape);
  }

  /// link_mpi.cpp and exchange.cpp: two blocks each way between stages; what goes to other shards or back to them, at
  /// most all slots of a block, and their parcels.
  std::int64_t links() const {
    const std::int64_t berths = grid_.pp == 1 ? 0 : grid_.pp == 2 ? 2 : 4;
    const std::int64_t slots = grid_.ep == 1 ? 0 : rows_ * top_k_;
    return berths * rows_ * 4 * hidden_ + slots * (place() + kParcelBytesPerSlot);
  }

  /// tally.cpp and saliency.cpp; on rank 0 what else is collected is there three times for all
  /// layers: as a saved state brings it, as the sum, and on its way to a file.
  std::int64_t sums() const {
    const std::int64_t own = most_layers(model_, grid_);
    const std::int64_t experts = model_.router.experts;
    const std::int64_t fields = work_.groups * experts * (8 * kSumsPerExpert + 4);
    const std::int64_t own_experts = ceil_div(experts, grid_.ep);
    const std::int64_t dots = work_.collected.gram ? 8 * rows_ * pair_count(top_k_) : 0;
    return (own + model_.layers) * fields + own * (output_sums() + input_sums(own_experts) + moments()) +
           3 * model_.layers * collected() + dots + moments_working();
  }

  /// All that is collected of a layer besides the fields.
  std::int64_t collected() const { return output_sums() + input_sums(model_.router.experts) + moments(); }

  std::int64_t hidden_states(std::int64_t rows) const {
    return 4 * hidden_ * (work_.scratch ? rows_ : rows);  // a block on its way to or from the file
  }

  /// evaluation.cpp, head.cpp and final_states.cpp, on the last stage.
  std::int64_t head() const {
    constexpr std::int64_t kTile = HeadForward::kTileRows;
    constexpr std::int64_t kResults = 2 * sizeof(Prediction) + sizeof(Divergence);
    const std::int64_t heads = work_.compared ? 2 : 1;
    const std::int64_t compared = work_.evaluated + heads - 1;
    const std::int64_t tiles = std::min<std::int64_t>(compared, 2) * kTile * (4 * model_.vocab + act_ * hidden_);
    const std::int64_t masks = work_.evaluated * most_layers(model_, grid_) * model_.router.experts * 4;
    const std::int64_t kept =
        work_.compared ? hidden_states(work_.column_rows(grid_.dp * grid_.ep) / work_.variants()) : 0;
    return heads * backend_.weight(head_stored_, model_.vocab, hidden_, work_.compute) + tiles +
           kTile * (4 * hidden_ + 2 * kResults) + 4 * compared * rows_ * hidden_ + masks + kept;
  }
  /// As it is read.
  std::int64_t head_tensor() const { return embedding(); }

  /// input_block.cpp: the rows of the embedding that a block asks for, as read and as held.
  std::int64_t embedding_rows() const { return 2 * rows_ * hidden_ * model_.embedding_element_bytes; }

 private:
  static constexpr std::int64_t kIntegersPerRow = 7;       // token, position and group, with copies on the host
  static constexpr std::int64_t kParcelBytesPerSlot = 32;  // rows and tags that leave, twice, and tags that come

  std::int64_t weight(std::int64_t rows, std::int64_t cols) const {
    return backend_.weight(stored_, rows, cols, work_.compute);
  }
  std::int64_t place() const { return act_ * hidden_ + 8; }

  /// output_tally.cpp, of a layer.
  std::int64_t output_sums() const {
    const std::int64_t experts = model_.router.experts;
    return (work_.collected.gram ? 8 * kDigits * pair_count(experts) : 0) +
           (work_.collected.outputs ? 8 * experts * hidden_ : 0);
  }
  /// input_tally.cpp, likewise.
  std::int64_t input_sums(std::int64_t experts) const {
    const std::int64_t channels = hidden_ + q_ + experts * (hidden_ + model_.expert.inner);
    return work_.collected.imatrix ? 8 * kSquareDigits * channels : 0;
  }
  /// moment_tally.cpp, likewise.
  std::int64_t moments() const {
    return work_.collected.moments ? 8 * (2 * moment_count(hidden_) + moment_count(q_)) : 0;
  }
  /// What they take besides: panels of rows (kernels/cpu/moments.cpp), or a layer on its way to rank 0.
  std::int64_t moments_working() const {
    constexpr std::int64_t kPanelRows = 512, kPanel = 32;
    if (!work_.collected.moments) return 0;
    const std::int64_t width = std::max(hidden_, q_);
    return std::max(4 * std::min(rows_, kPanelRows) * round_up(width, kPanel), 2 * 8 * moment_count(width));
  }

  const Model& model_;
  const Grid& grid_;
  const Workload& work_;
  CpuFootprint backend_;
  DType stored_, head_stored_;
  std::int64_t act_, hidden_, q_, kv_, top_k_, rows_;
};

}  // namespace

std::int64_t most_layers(const Model& model, const Grid& grid) { return ceil_div(model.layers, grid.pp); }

std::int64_t layer_bytes(const Model& model, const Grid& grid, const Workload& work) {
  return Arithmetic(model, grid, work).layer();
}

std::int64_t collected_bytes(const Model& model, const Workload& work) {
  return model.layers * Arithmetic(model, {1, 1, 1}, work).collected();
}

std::int64_t piece_bytes(const Model& model, const Workload& work) {
  const Arithmetic rank(model, {1, 1, 1}, work);
  return std::max(rank.dense(), rank.expert());
}

Footprint footprint_of(const Model& model, const Grid& grid, const Workload& work, const Holding& holding) {
  const Arithmetic rank(model, grid, work);
  Footprint need;
  need.program = kProgramBytes;
  need.reading = rank.largest_tensor();
  need.forward = rank.forward();
  need.links = rank.links();
  if (work.evaluated == 0) {
    need.sums = rank.sums();
  } else {
    need.head = rank.head();
  }
  if (holding.streamed) {
    need.weights = holding.weight_window;
    need.reading += rank.embedding_rows();
    need.hidden = rank.hidden_states(holding.wave_rows);
    if (work.evaluated > 0) need.reading = std::max(need.reading, rank.head_tensor() - need.weights);
    return need;
  }
  // The first part of a split is never larger than the others: the embedding goes with the smaller stage. It is read
  // whole, before the layers.
  const std::int64_t first = layer_range(model.layers, grid.pp, 0).size() * rank.layer() + rank.embedding();
  need.weights = std::max(most_layers(model, grid) * rank.layer(), first);
  need.reading = std::max(need.reading, 2 * rank.embedding() - need.weights);
  if (work.evaluated > 0) need.reading = std::max(need.reading, rank.head_tensor() - need.weights);
  return need;
}

}  // namespace reap
