#include "shard/pipeline.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "shard/block.hpp"
#include "shard/layer.hpp"
#include "shard/link_mpi.hpp"
#include "shard/tally.hpp"

namespace reap {
namespace {

/// The weights that one rank holds for the calibration pass.
struct StageWeights {
  Embedding embedding;  // first stage only
  std::vector<LayerWeights> layers;
};

StageWeights load_stage(const Checkpoint& checkpoint, const Model& model, const Placement& placement, Backend& backend,
                        const PipelineEvents& events) {
  StageWeights weights;
  if (placement.stage == 0) weights.embedding = load_embedding(checkpoint, model, backend);
  for (std::int64_t layer = placement.layers.begin; layer < placement.layers.end; ++layer) {
    weights.layers.push_back(load_layer(checkpoint, model, layer, placement.experts, backend));
    if (events.layer_loaded) {
      events.layer_loaded(static_cast<std::int64_t>(weights.layers.size()), weights.layers.back().bytes());
    }
  }
  return weights;
}

std::vector<Block> blocks_of_column(const std::vector<Block>& blocks, const Placement& placement) {
  std::vector<Block> own;
  for (const Block& block : blocks) {
    if (block.index % placement.columns() == placement.column()) own.push_back(block);
  }
  return own;
}

/// Steps of this rank's expert group: as many as its fullest column, the first, has blocks.
std::int64_t steps_of_group(std::int64_t blocks, const Placement& placement) {
  const std::int64_t first = std::int64_t{placement.replica} * placement.grid.ep;
  return (blocks - first + placement.columns() - 1) / placement.columns();
}

std::vector<std::int64_t> rows_of(const std::vector<Block>& blocks) {
  std::vector<std::int64_t> rows(blocks.size());
  std::transform(blocks.begin(), blocks.end(), rows.begin(), [](const Block& block) { return block.rows(); });
  return rows;
}

/// x = the embeddings of the block's tokens.
void embed(const Samples& samples, const Block& block, const Model& model, const Embedding& embedding, Backend& backend,
           Buffer<std::int32_t>& token_buffer, float* x) {
  const std::vector<std::int32_t> tokens = samples.read_tokens(block.begin, block.end);
  REAP_CHECK(static_cast<std::int64_t>(tokens.size()) == block.rows(), "block {} has {} tokens, read {}", block.index,
             block.rows(), tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < model.vocab) continue;
    fail(ExitCode::bad_input, "token {} of the calibration data is {}, not in the model's vocabulary of {}",
         block.begin + static_cast<std::int64_t>(i), tokens[i], model.vocab);
  }
  backend.upload(token_buffer.data(), tokens.data(), tokens.size() * sizeof(std::int32_t));
  backend.embed(embedding.table.data(), embedding.dtype, model.hidden, token_buffer.data(), block.rows(), x);
  backend.synchronize();  // `tokens` ends here
}

}  // namespace

Saliency all_observe(const Comm& world, const Checkpoint& checkpoint, const Model& model, const Placement& placement,
                     const Samples& samples, const std::vector<Block>& blocks, Backend& backend,
                     const PipelineEvents& events) {
  REAP_CHECK(!blocks.empty(), "a calibration pass over no blocks");
  StageWeights weights;
  world.all_try([&] { weights = load_stage(checkpoint, model, placement, backend, events); });

  const std::vector<Block> own = blocks_of_column(blocks, placement);
  const std::int64_t max_rows = std::ranges::max(rows_of(blocks));
  const auto link = make_mpi_link(world, placement, backend, model.hidden, rows_of(own));

  const bool first_stage = placement.stage == 0;
  const bool last_stage = placement.stage + 1 == placement.grid.pp;
  Tally tally(model, placement.layers, samples.groups(), backend);
  BlockForward forward(model, placement, backend, *link, max_rows);
  BlockRows rows(backend, max_rows);
  Buffer<std::int32_t> tokens(backend.memory(), max_rows);
  const Buffer<float> x(backend.memory(), max_rows * model.hidden);

  const std::int64_t steps = steps_of_group(static_cast<std::int64_t>(blocks.size()), placement);
  for (std::int64_t step = 0; step < steps; ++step) {
    const Block* block = step < static_cast<std::int64_t>(own.size()) ? &own[static_cast<std::size_t>(step)] : nullptr;
    if (block == nullptr) {
      rows.clear();
    } else {
      rows.set(samples, *block);
      if (first_stage) {
        embed(samples, *block, model, weights.embedding, backend, tokens, x.data());
      } else {
        link->receive(x.data(), block->rows());
      }
    }
    for (std::size_t i = 0; i < weights.layers.size(); ++i) {
      const LayerTrace trace = forward.all_layer(weights.layers[i], rows, x.data());
      tally.add(placement.layers.begin + static_cast<std::int64_t>(i), rows, trace);
    }
    if (block == nullptr) continue;
    tally.commit(rows);
    if (!last_stage) link->send(x.data(), block->rows());
    if (events.block_done) events.block_done(*block);
  }
  link->flush();

  Saliency total = tally.all_sum(world);
  total.check_conservation(samples.tokens(), model.router.top_k);
  return total;
}

}  // namespace reap
