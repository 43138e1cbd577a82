#include "shard/workload.hpp"

#include <algorithm>

namespace reap {

std::int64_t Workload::tokens() const {
  std::int64_t rows = 0;
  for (const Block& block : blocks) rows += block.rows();
  return rows;
}

std::int64_t Workload::max_rows() const {
  std::int64_t rows = 0;
  for (const Block& block : blocks) rows = std::max(rows, block.rows());
  return rows;
}

std::int64_t Workload::column_rows(int columns) const {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(columns));
  for (std::size_t i = 0; i < blocks.size(); ++i) rows[i % rows.size()] += blocks[i].rows();
  return *std::max_element(rows.begin(), rows.end()) * variants();
}

Workload workload_of(const Samples& samples, std::int64_t block_tokens) {
  Workload work;
  work.blocks = make_blocks(samples.offsets, block_tokens);
  work.groups = samples.groups();
  double pairs = 0;  // (query, key)
  for (std::size_t i = 0; i + 1 < samples.offsets.size(); ++i) {
    const std::int64_t length = samples.offsets[i + 1] - samples.offsets[i];
    work.longest_sample = std::max(work.longest_sample, length);
    pairs += static_cast<double>(length) * static_cast<double>(length + 1) / 2;
  }
  work.mean_context = samples.tokens() == 0 ? 0 : pairs / static_cast<double>(samples.tokens());
  return work;
}

double layer_flops_per_token(const Model& model, double mean_context) {
  const auto hidden = static_cast<double>(model.hidden);
  const auto q = static_cast<double>(model.attention.heads * model.attention.head_dim);
  const auto kv = static_cast<double>(model.attention.kv_heads * model.attention.head_dim);
  const double projections = 2 * hidden * (2 * q + 2 * kv);
  const double attention = 4 * q * mean_context;
  const double experts = 6.0 * static_cast<double>(model.router.top_k * model.expert.inner) * hidden;
  const double router = 2 * hidden * static_cast<double>(model.router.experts);
  return projections + attention + experts + router;
}

double head_flops_per_token(const Model& model) {
  return 2 * static_cast<double>(model.hidden) * static_cast<double>(model.vocab);
}

}  // namespace reap
