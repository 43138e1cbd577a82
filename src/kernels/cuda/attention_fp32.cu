#include <algorithm>

#include "kernels/cuda/attention_call.hpp"
#include "kernels/cuda/check.hpp"

// Causal attention in fp32 with a running softmax: the arithmetic of the reference. Sixteen threads, half a warp, share
// a query: each takes two keys of a tile, then every sixteenth dimension of the values. A row's sums run over its keys
// in ascending order, a tile at a time: one long running sum would swallow its terms one by one.

namespace reap::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kShare = 16;  // threads of a query
constexpr int kQueries = kThreads / kShare;
constexpr int kKeys = 2 * kShare;
constexpr int kDims = static_cast<int>(kMostHeadDim) / kShare;  // of a thread

/// Rows in shared memory are one longer than they need be: sixteen rows read at one dimension are in different banks.
__host__ __device__ constexpr int row_size(int head_dim) { return head_dim + 1; }
constexpr int shared_bytes(int head_dim) {
  return (kQueries * row_size(head_dim) + 2 * kKeys * row_size(head_dim) + kQueries * kKeys) *
         static_cast<int>(sizeof(float));
}

/// `rows` rows to shared memory, then zeros up to `all`.
__device__ void load_rows(const float* from, std::int64_t stride, int rows, int all, int head_dim, float* to) {
  for (int i = static_cast<int>(threadIdx.x); i < all * head_dim; i += kThreads) {
    const int row = i / head_dim, d = i % head_dim;
    to[row * row_size(head_dim) + d] = row < rows ? from[row * stride + d] : 0.0f;
  }
}

/// Over the threads of a query, in all of them.
__device__ float share_max(float value) {
  for (int distance = 1; distance < kShare; distance *= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffU, value, distance));
  }
  return value;
}

__device__ float share_sum(float value) {
  for (int distance = 1; distance < kShare; distance *= 2) value += __shfl_xor_sync(0xffffffffU, value, distance);
  return value;
}

/// State of a query's softmax; sum holds dimensions place + 16 i of the values' weighted sum.
struct Query {
  float highest = -INFINITY;
  float total = 0;
  float sum[kDims] = {};
};

/// Adds a tile: `seen` of its keys are visible to the query, maybe none. `p` holds kKeys of the query's exponentials.
__device__ void add_tile(Query& query, const float* q, const float* keys, const float* values, int seen, int place,
                         int head_dim, float scale, float* p) {
  float score[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float* const key = keys + (place + i * kShare) * row_size(head_dim);
    float dot = 0;
    for (int d = 0; d < head_dim; ++d) dot = fmaf(q[d], key[d], dot);
    score[i] = place + i * kShare < seen ? dot * scale : -INFINITY;
  }
  const float highest = fmaxf(query.highest, share_max(fmaxf(score[0], score[1])));
  const float keep = expf(query.highest - highest);
  const float first = expf(score[0] - highest), second = expf(score[1] - highest);
  query.highest = highest;
  query.total = query.total * keep + share_sum(first + second);
  p[place] = first;
  p[place + kShare] = second;
  __syncwarp();  // the query's threads are of one warp
#pragma unroll
  for (int i = 0; i < kDims; ++i) {
    const int d = place + i * kShare;
    if (d >= head_dim) continue;
    float sum = 0;
    for (int key = 0; key < seen; ++key) sum = fmaf(p[key], values[key * row_size(head_dim) + d], sum);
    query.sum[i] = query.sum[i] * keep + sum;
  }
}

__global__ __launch_bounds__(kThreads) void attend(const __grid_constant__ AttentionCall<float> call) {
  extern __shared__ float shared[];
  const int head_dim = call.head_dim;
  float* const queries = shared;
  float* const keys = queries + kQueries * row_size(head_dim);
  float* const values = keys + kKeys * row_size(head_dim);
  const QueryTile tile = query_tile(call.tiles, kQueries, static_cast<int>(blockIdx.x) / call.heads);
  const int head = static_cast<int>(blockIdx.x) % call.heads;
  const int local = static_cast<int>(threadIdx.x) / kShare, place = static_cast<int>(threadIdx.x) % kShare;
  const int count = min(kQueries, tile.length - tile.query);
  const std::int64_t at_q = (tile.row + tile.query) * call.q_stride + head * head_dim;
  const std::int64_t at_kv = tile.row * call.kv_stride + head / call.group * head_dim;
  load_rows(call.q + at_q, call.q_stride, count, kQueries, head_dim, queries);

  Query query;
  float* const p = values + kKeys * row_size(head_dim) + local * kKeys;
  for (int first = 0; first < tile.query + count; first += kKeys) {
    const int rows = min(kKeys, tile.query + count - first);
    __syncthreads();
    load_rows(call.k + at_kv + first * call.kv_stride, call.kv_stride, rows, kKeys, head_dim, keys);
    load_rows(call.v + at_kv + first * call.kv_stride, call.kv_stride, rows, kKeys, head_dim, values);
    __syncthreads();
    // Queries past the last are computed like it and never stored.
    const int seen = max(0, min(rows, tile.query + min(local, count - 1) - first + 1));
    add_tile(query, queries + local * row_size(head_dim), keys, values, seen, place, head_dim, call.scale, p);
  }
  if (local >= count) return;
#pragma unroll
  for (int i = 0; i < kDims; ++i) {
    const int d = place + i * kShare;
    if (d < head_dim) call.out[at_q + local * call.q_stride + d] = query.sum[i] / query.total;
  }
}

}  // namespace

void attention_fp32(const Launch& launch, AttentionCall<float> call, std::span<const std::int64_t> start) {
  const int bytes = shared_bytes(call.head_dim);
  REAP_CUDA(cudaFuncSetAttribute(attend, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  for (const SampleTiles& tiles : sample_tiles(start, kQueries)) {
    call.tiles = tiles;
    const int blocks = tiles.first_tile[tiles.samples] * call.heads;
    attend<<<blocks, kThreads, static_cast<std::size_t>(bytes), launch.stream>>>(call);
    REAP_CUDA_LAUNCHED();
  }
}

}  // namespace reap::cuda
