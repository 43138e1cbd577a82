#include "kernels/cuda/attention_call.hpp"
#include "kernels/cuda/check.hpp"
#include "kernels/cuda/mma.cuh"

// Causal attention on the tensor cores with a running softmax (FlashAttention-2, Dao 2023). A warp has 16 queries of
// one head; a block's warps share tiles of keys and values in shared memory, two of each, of which one is on its way.
// Scores, softmax and sums are fp32; exponentials are rounded to bf16 for their product with the values, not for their
// own sum.

namespace reap::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

/// How a block with head_dim up to kDim works. Dimensions past head_dim are zeros.
template <int kDimension>
struct Plan {
  static constexpr int kDim = kDimension;
  static constexpr int kQueries = kDim > 128 ? 64 : 128;
  static constexpr int kKeys = kDim > 128 ? 32 : 64;
  static constexpr int kThreads = kQueries / 16 * 32;
  static constexpr int kChunks = kDim / kChunkElements;  // of a row
  static constexpr int kRowBytes = kDim * 2;
  static constexpr int kQueryBytes = kQueries * kRowBytes;
  static constexpr int kKeyBytes = kKeys * kRowBytes;
  static constexpr int kSharedBytes = kQueryBytes + 4 * kKeyBytes;  // two tiles of keys, two of values
  static constexpr int kKeyTiles = kKeys / 8;
  static constexpr int kDimTiles = kDim / 8;
};

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// The first `rows` rows of head_dim elements to a swizzled tile of `all` rows, then zeros.
template <class P>
__device__ void load_rows(const __nv_bfloat16* from, std::int64_t stride, int rows, int all, int head_dim, bool aligned,
                          std::uint32_t to) {
  for (int i = static_cast<int>(threadIdx.x); i < all * P::kChunks; i += P::kThreads) {
    const int row = i / P::kChunks, chunk = i % P::kChunks;
    const int left = row < rows ? head_dim - chunk * kChunkElements : 0;
    copy_chunk(to + swizzled<P::kChunks>(row, chunk), left > 0 ? from + row * stride + chunk * kChunkElements : from,
               left, aligned);
  }
}

/// A thread's part of its warp's queries: rows lane / 4 and lane / 4 + 8, in the layout of mma's accumulators.
template <class P>
struct Queries {
  float sum[P::kDimTiles][4] = {};  // exponentials times values so far
  float highest[2] = {-INFINITY, -INFINITY};
  float total[2] = {};  // of this thread's keys only, until the end
};

/// scores = q k^T for the warp's queries and a tile of keys.
template <class P>
__device__ void multiply_keys(std::uint32_t queries, std::uint32_t keys, int lane, float (&scores)[P::kKeyTiles][4]) {
  const RowChunk from_a = a_source(lane);
  const RowChunk from_b = b_source(lane);
#pragma unroll
  for (int chunk = 0; chunk < P::kChunks; chunk += 2) {
    std::uint32_t a[4];
    load_matrices(a, queries + swizzled<P::kChunks>(from_a.row, chunk + from_a.chunk));
#pragma unroll
    for (int j = 0; j < P::kKeyTiles; j += 2) {
      std::uint32_t b[4];
      load_matrices(b, keys + swizzled<P::kChunks>(j * 8 + from_b.row, chunk + from_b.chunk));
      multiply_add(scores[j], a, b[0], b[1]);
      multiply_add(scores[j + 1], a, b[2], b[3]);
    }
  }
}

/// Turns scores into exponentials relative to the largest score so far, and shrinks earlier sums to match.
/// `scale` takes scores to powers of two.
template <class P>
__device__ void softmax(Queries<P>& queries, float scale, float (&scores)[P::kKeyTiles][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float highest = queries.highest[half];
#pragma unroll
    for (int j = 0; j < P::kKeyTiles; ++j) {
      highest = fmaxf(highest, fmaxf(scores[j][half * 2], scores[j][half * 2 + 1]));
    }
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffU, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffU, highest, 2));
    const float keep = exp2_fast((queries.highest[half] - highest) * scale);
    const float subtract = highest * scale;
    float total = 0;
#pragma unroll
    for (int j = 0; j < P::kKeyTiles; ++j) {
#pragma unroll
      for (int i = half * 2; i < half * 2 + 2; ++i) {
        scores[j][i] = exp2_fast(fmaf(scores[j][i], scale, -subtract));
        total += scores[j][i];
      }
    }
    queries.highest[half] = highest;
    queries.total[half] = queries.total[half] * keep + total;
#pragma unroll
    for (int d = 0; d < P::kDimTiles; ++d) {
      queries.sum[d][half * 2] *= keep;
      queries.sum[d][half * 2 + 1] *= keep;
    }
  }
}

/// sum += p v. The accumulators of two neighbouring tiles of keys are, rounded, the A fragment of their 16 keys.
template <class P>
__device__ void multiply_values(std::uint32_t values, int lane, const float (&p)[P::kKeyTiles][4],
                                Queries<P>& queries) {
  const RowChunk from = a_source(lane);
#pragma unroll
  for (int j = 0; j < P::kKeyTiles; j += 2) {
    const std::uint32_t a[4] = {pack_bf16(p[j][0], p[j][1]), pack_bf16(p[j][2], p[j][3]),
                                pack_bf16(p[j + 1][0], p[j + 1][1]), pack_bf16(p[j + 1][2], p[j + 1][3])};
#pragma unroll
    for (int chunk = 0; chunk < P::kChunks; chunk += 2) {
      std::uint32_t b[4];
      load_matrices_transposed(b, values + swizzled<P::kChunks>(j * 8 + from.row, chunk + from.chunk));
      multiply_add(queries.sum[chunk], a, b[0], b[1]);
      multiply_add(queries.sum[chunk + 1], a, b[2], b[3]);
    }
  }
}

/// A tile of keys for one warp, whose first query is `query` of its sample.
template <class P>
__device__ void add_tile(std::uint32_t q, std::uint32_t keys, std::uint32_t values, int first_key, int query, int lane,
                         float scale, Queries<P>& queries) {
  float scores[P::kKeyTiles][4] = {};
  multiply_keys<P>(q, keys, lane, scores);
  if (first_key + P::kKeys > query + 1) {  // some query of the warp does not see all keys
#pragma unroll
    for (int j = 0; j < P::kKeyTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first_key + j * 8 + accumulator_col(lane, i);
        if (key > query + accumulator_row(lane, i)) scores[j][i] = -INFINITY;
      }
    }
  }
  softmax<P>(queries, scale, scores);
  multiply_values<P>(values, lane, scores, queries);
}

/// `to` is that of the warp's first query, of which `count` exist.
template <class P>
__device__ void store_queries(const Queries<P>& queries, int lane, int count, int head_dim, std::int64_t stride,
                              __nv_bfloat16* to) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = queries.total[half];
    total += __shfl_xor_sync(0xffffffffU, total, 1);
    total += __shfl_xor_sync(0xffffffffU, total, 2);
    const int row = accumulator_row(lane, half * 2);
    if (row >= count) continue;
#pragma unroll
    for (int d = 0; d < P::kDimTiles; ++d) {
      const int column = d * 8 + accumulator_col(lane, 0);
      store_bf16(to + row * stride + column, queries.sum[d][half * 2] / total, queries.sum[d][half * 2 + 1] / total,
                 head_dim % 2 == 0, head_dim - column);
    }
  }
}

template <class P>
__global__ __launch_bounds__(P::kThreads) void attend(const __grid_constant__ AttentionCall<__nv_bfloat16> call,
                                                      bool aligned) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const std::uint32_t q = shared_address(shared);
  const std::uint32_t tiles = q + P::kQueryBytes;
  const QueryTile tile = query_tile(call.tiles, P::kQueries, static_cast<int>(blockIdx.x) / call.heads);
  const int head = static_cast<int>(blockIdx.x) % call.heads;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int count = min(P::kQueries, tile.length - tile.query);
  const int end = tile.query + count;  // nobody in the block sees a key from here on
  const std::int64_t at_q = (tile.row + tile.query) * call.q_stride + head * call.head_dim;
  const std::int64_t at_kv = tile.row * call.kv_stride + head / call.group * call.head_dim;
  const auto load_keys = [&](int first) {
    if (first < end) {
      const std::int64_t at = at_kv + first * call.kv_stride;
      const std::uint32_t to = tiles + first / P::kKeys % 2 * 2 * P::kKeyBytes;
      const int rows = min(P::kKeys, end - first);
      load_rows<P>(call.k + at, call.kv_stride, rows, P::kKeys, call.head_dim, aligned, to);
      load_rows<P>(call.v + at, call.kv_stride, rows, P::kKeys, call.head_dim, aligned, to + P::kKeyBytes);
    }
    commit_copies();
  };
  load_rows<P>(call.q + at_q, call.q_stride, count, P::kQueries, call.head_dim, aligned, q);
  load_keys(0);

  Queries<P> queries;
  const int query = tile.query + warp * 16;
  for (int first = 0; first < end; first += P::kKeys) {
    wait_for_copies<0>();
    __syncthreads();  // this tile is whole, and nobody reads the one before any more
    load_keys(first + P::kKeys);
    if (first > query + 15) continue;  // the warp sees none of it
    const std::uint32_t keys = tiles + first / P::kKeys % 2 * 2 * P::kKeyBytes;
    add_tile<P>(q + warp * 16 * P::kRowBytes, keys, keys + P::kKeyBytes, first, query, lane, call.scale * kLog2E,
                queries);
  }
  store_queries<P>(queries, lane, count - warp * 16, call.head_dim, call.q_stride,
                   call.out + at_q + warp * 16 * call.q_stride);
}

template <class P>
void run(const Launch& launch, AttentionCall<__nv_bfloat16>& call, std::span<const std::int64_t> start) {
  const bool aligned = call.head_dim % kChunkElements == 0;
  REAP_CUDA(cudaFuncSetAttribute(attend<P>, cudaFuncAttributeMaxDynamicSharedMemorySize, P::kSharedBytes));
  for (const SampleTiles& tiles : sample_tiles(start, P::kQueries)) {
    call.tiles = tiles;
    const int blocks = tiles.first_tile[tiles.samples] * call.heads;
    attend<P><<<blocks, P::kThreads, P::kSharedBytes, launch.stream>>>(call, aligned);
    REAP_CUDA_LAUNCHED();
  }
}

}  // namespace

void attention_bf16(const Launch& launch, AttentionCall<__nv_bfloat16> call, std::span<const std::int64_t> start) {
  if (call.head_dim <= 32) return run<Plan<32>>(launch, call, start);
  if (call.head_dim <= 64) return run<Plan<64>>(launch, call, start);
  if (call.head_dim <= 128) return run<Plan<128>>(launch, call, start);
  run<Plan<256>>(launch, call, start);
}

}  // namespace reap::cuda
