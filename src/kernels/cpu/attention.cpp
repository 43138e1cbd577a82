#include <omp.h>

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/cpu/ops.hpp"

namespace reap::cpu {
namespace {

/// Consecutive queries of one sample; every kv head's group makes a tile of them.
struct Piece {
  std::int64_t sample;       // its first row
  std::int64_t first_query;  // within the sample
  std::int64_t queries;
};

/// Pieces start at fixed places of the sample, so that its bits do not depend on its neighbours. The most expensive,
/// those with the most keys before them, come first: the short ones then even out the threads' ends.
std::vector<Piece> cut(std::span<const std::int64_t> start, std::int64_t most_queries) {
  std::vector<Piece> pieces;
  for (std::size_t s = 0; s + 1 < start.size(); ++s) {
    const std::int64_t length = start[s + 1] - start[s];
    REAP_CHECK(length >= 0, "sample {} starts at row {} and ends at row {}", s, start[s], start[s + 1]);
    for (std::int64_t query = 0; query < length; query += most_queries) {
      pieces.push_back({start[s], query, std::min(most_queries, length - query)});
    }
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.first_query > b.first_query; });
  return pieces;
}

}  // namespace

// Bound by fp32 multiply-adds: 2 * head_dim of them per query, head and visible key.
void attention(const Run& run, const void* q, const void* k, const void* v, std::span<const std::int64_t> start,
               const AttentionShape& shape, void* out) {
  REAP_CHECK(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0, "{} heads share {} kv heads", shape.heads,
             shape.kv_heads);
  const std::int64_t group = shape.heads / shape.kv_heads;
  const std::vector<Piece> pieces = cut(start, run.vector.attention_queries(group));
  const std::int64_t scratch_size = run.vector.attention_scratch(group, shape.head_dim);
  const Buffer<float> scratch(host_memory, run.threads * scratch_size);

  const auto element = static_cast<std::int64_t>(size_of(activation_dtype(run.compute)));
  const std::int64_t q_stride = shape.heads * shape.head_dim;
  const std::int64_t kv_stride = shape.kv_heads * shape.head_dim;
  const std::int64_t tiles = static_cast<std::int64_t>(pieces.size()) * shape.kv_heads;
#pragma omp parallel for num_threads(run.threads) schedule(dynamic)
  for (std::int64_t index = 0; index < tiles; ++index) {
    const Piece& piece = pieces[static_cast<std::size_t>(index / shape.kv_heads)];
    const std::int64_t kv_head = index % shape.kv_heads;
    const std::int64_t at_q =
        ((piece.sample + piece.first_query) * q_stride + kv_head * group * shape.head_dim) * element;
    const std::int64_t at_kv = (piece.sample * kv_stride + kv_head * shape.head_dim) * element;
    const AttentionTile tile{.q = static_cast<const std::byte*>(q) + at_q,
                             .k = static_cast<const std::byte*>(k) + at_kv,
                             .v = static_cast<const std::byte*>(v) + at_kv,
                             .out = static_cast<std::byte*>(out) + at_q,
                             .is_bf16 = run.compute == Compute::bf16,
                             .q_stride = q_stride,
                             .kv_stride = kv_stride,
                             .first_query = piece.first_query,
                             .queries = piece.queries,
                             .group = group,
                             .head_dim = shape.head_dim};
    run.vector.attention(tile, scratch.data() + omp_get_thread_num() * scratch_size);
  }
}

}  // namespace reap::cpu
