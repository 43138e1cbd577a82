#include "kernels/cpu/vector_kernels.hpp"
#include "kernels/cpu/vector_math.hpp"

// Causal attention over tiles of keys with a running softmax. Scores are kept transposed, [key][query]: queries are the
// lanes of a vector, so that maxima and sums over keys need no reduction across lanes and K is used as it is stored.
// Everything is in fp32. A row's sums run over its keys in ascending order, whatever else is in the tile.

namespace reap::REAP_ISA {
namespace {

constexpr bool kManyRegisters = kVectorBytes == 64;  // 32 registers rather than 16, for the sums of a micro-kernel
constexpr int kBlock = 48;                           // queries of a block: lanes of score vectors
constexpr int kKeys = 64;                            // keys of a tile
constexpr int kKeyStep = kManyRegisters ? 8 : 4;     // q k^T: kKeyStep keys by kScoreVecs vectors of queries at once
constexpr int kScoreVecs = 3;
constexpr int kQueryStep = 6;  // p v: kQueryStep queries by kDimVecs vectors of head_dim at once
constexpr int kDimVecs = kManyRegisters ? 4 : 2;
constexpr std::int64_t kBlocksPerTile = 6;  // blocks that share a tile of K and V once it is in cache

static_assert(kBlock % kLanes == 0 && kBlock % kQueryStep == 0 && kKeys % kKeyStep == 0);

constexpr float kInfinity = __builtin_inff();

constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

constexpr std::int64_t at_most(std::int64_t value, std::int64_t most) { return value < most ? value : most; }

/// Query blocks of one head in a full tile.
std::int64_t blocks_per_head(std::int64_t group) { return group < kBlocksPerTile ? kBlocksPerTile / group : 1; }

/// State of one block of queries of one head.
struct Block {
  float* q;        // [head_dim, kBlock] transposed and scaled
  float* sum;      // [kBlock, dim] sum of p * v so far
  float* highest;  // [kBlock] largest score so far
  float* total;    // [kBlock] sum of p so far
};

/// Where things lie in the scratch. `dim` is head_dim in whole vectors.
struct Scratch {
  Scratch(float* base, std::int64_t head_dim)
      : dim{round_up(head_dim, kLanes)},
        keys{base},
        values{keys + kKeys * dim},
        p{values + kKeys * dim},
        rescale{p + kKeys * kBlock},
        first_block{rescale + kBlock},
        block_size{head_dim * kBlock + kBlock * dim + 2 * kBlock} {}
  static std::int64_t size(std::int64_t blocks, std::int64_t head_dim) {
    const std::int64_t padded = round_up(head_dim, kLanes);
    return 2 * kKeys * padded + kKeys * kBlock + kBlock + blocks * kBlock * (head_dim + padded + 2);
  }
  Block block(std::int64_t index, std::int64_t head_dim) const {
    float* q = first_block + index * block_size;
    float* sum = q + head_dim * kBlock;
    float* highest = sum + kBlock * dim;
    return {q, sum, highest, highest + kBlock};
  }
  std::int64_t dim;
  float* keys;         // [kKeys, dim]
  float* values;       // [kKeys, dim]
  float* p;            // [kKeys, kBlock] scores of one block, then their exponentials
  float* rescale;      // [kBlock] what earlier sums shrink by
  float* first_block;  // the blocks' states, one after the other
  std::int64_t block_size;
};

/// c[r, columns] = keep[r] * c[r, columns] + sum over d of a[r * a_row + d * a_step] * b[d, columns] for `Rows` rows
/// and `Vecs` vectors of columns; the sum alone when keep is null.
template <int Rows, int Vecs>
inline void multiply(const float* a, std::int64_t a_row, std::int64_t a_step, const float* b, std::int64_t b_stride,
                     std::int64_t depth, const float* keep, float* c, std::int64_t c_stride) {
  Vec sum[Rows][Vecs];
  for (int row = 0; row < Rows; ++row) {
    for (int vec = 0; vec < Vecs; ++vec) {
      sum[row][vec] = Vec{};
    }
  }
  for (std::int64_t d = 0; d < depth; ++d) {
    Vec operand[Vecs];
    for (int vec = 0; vec < Vecs; ++vec) operand[vec] = load(b + d * b_stride + vec * kLanes);
    for (int row = 0; row < Rows; ++row) {
      const Vec factor = splat(a[row * a_row + d * a_step]);
      for (int vec = 0; vec < Vecs; ++vec) sum[row][vec] += factor * operand[vec];
    }
  }
  for (int row = 0; row < Rows; ++row) {
    for (int vec = 0; vec < Vecs; ++vec) {
      float* at = c + row * c_stride + vec * kLanes;
      // Added last: a long running sum would swallow the tile's terms one by one.
      store(at, keep == nullptr ? sum[row][vec] : load(at) * keep[row] + sum[row][vec]);
    }
  }
}

/// What a block meets in a tile of keys. Its query i sees key j of the tile when j <= i + ahead.
struct Meeting {
  std::int64_t queries;  // of the block
  std::int64_t keys;     // of the tile that any of them sees
  std::int64_t ahead;    // from the tile's first key to the block's first query; negative when the tile starts later
};

/// p[key, query] = k . q, in whole steps of keys and vectors of queries, wherever a key is seen.
void scores(const Block& block, const Scratch& scratch, const Meeting& meeting, std::int64_t head_dim) {
  const std::int64_t end = round_up(meeting.queries, kLanes);
  for (std::int64_t key = 0; key < meeting.keys; key += kKeyStep) {
    const std::int64_t blind = key - meeting.ahead;  // queries before this one see none of the step's keys
    const auto columns = [&]<int Vecs>(std::int64_t column) {
      multiply<kKeyStep, Vecs>(scratch.keys + key * scratch.dim, scratch.dim, 1, block.q + column, kBlock, head_dim,
                               nullptr, scratch.p + key * kBlock + column, kBlock);
      return Vecs * kLanes;
    };
    for (std::int64_t column = blind > 0 ? blind / kLanes * kLanes : 0; column < end;) {
      const std::int64_t left = (end - column) / kLanes;
      column += left >= 3   ? columns.template operator()<3>(column)
                : left == 2 ? columns.template operator()<2>(column)
                            : columns.template operator()<1>(column);
    }
  }
}

/// Turns scores into exponentials relative to the largest score so far, and those of unseen keys into 0.
void softmax(const Block& block, const Scratch& scratch, const Meeting& meeting) {
  for (std::int64_t column = 0; column < meeting.queries; column += kLanes) {
    // add_values() takes queries in steps that may begin in this vector and end in the next: they want zeros that far.
    const std::int64_t keys = at_most(column + kLanes + kQueryStep + meeting.ahead, meeting.keys);
    IntVec visible;  // the last key that each lane sees
    for (int lane = 0; lane < kLanes; ++lane) visible[lane] = static_cast<std::int32_t>(column + lane + meeting.ahead);
    const Vec before = load(block.highest + column);
    Vec highest = before;
    for (std::int64_t key = 0; key < keys; ++key) {
      float* at = scratch.p + key * kBlock + column;
      const Vec score = visible < static_cast<std::int32_t>(key) ? splat(-kInfinity) : load(at);
      highest = score > highest ? score : highest;
      store(at, score);
    }
    const Vec rescale = exp_nonpositive(before - highest);
    Vec total{};
    for (std::int64_t key = 0; key < keys; ++key) {
      float* at = scratch.p + key * kBlock + column;
      const Vec p = exp_nonpositive(load(at) - highest);
      total += p;
      store(at, p);
    }
    store(block.highest + column, highest);
    store(block.total + column, load(block.total + column) * rescale + total);
    store(scratch.rescale + column, rescale);
  }
}

/// sum = rescale * sum + p v. The last step may run past the block's queries: those rows are never read.
void add_values(const Block& block, const Scratch& scratch, const Meeting& meeting) {
  for (std::int64_t query = 0; query < meeting.queries; query += kQueryStep) {
    // Keys that the last query of the step sees.
    const std::int64_t depth = at_most(query + kQueryStep + meeting.ahead, meeting.keys);
    if (depth <= 0) continue;
    const float* p = scratch.p + query;
    const float* keep = scratch.rescale + query;
    float* sum = block.sum + query * scratch.dim;
    std::int64_t d = 0;
    for (; d + kDimVecs * kLanes <= scratch.dim; d += kDimVecs * kLanes) {
      multiply<kQueryStep, kDimVecs>(p, 1, kBlock, scratch.values + d, scratch.dim, depth, keep, sum + d, scratch.dim);
    }
    for (; d < scratch.dim; d += kLanes) {
      multiply<kQueryStep, 1>(p, 1, kBlock, scratch.values + d, scratch.dim, depth, keep, sum + d, scratch.dim);
    }
  }
}

template <class T>
void load_queries(const T* q, std::int64_t stride, std::int64_t queries, std::int64_t head_dim, const Block& block) {
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(head_dim));
  alignas(kVectorBytes) float wide[kLanes];
  for (std::int64_t query = 0; query < kBlock; ++query) {
    for (std::int64_t d = 0; d < head_dim; d += kLanes) {
      const std::int64_t count = head_dim - d < kLanes ? head_dim - d : kLanes;
      store(wide, query < queries ? load_some(q + query * stride + d, count) * scale : Vec{});
      for (std::int64_t lane = 0; lane < count; ++lane) block.q[(d + lane) * kBlock + query] = wide[lane];
    }
  }
}

/// to[kKeys, dim] = the first `rows` rows of from, then zeros.
template <class T>
void load_keys(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t head_dim, std::int64_t dim,
               float* to) {
  for (std::int64_t row = 0; row < kKeys; ++row) {
    const T* source = row < rows ? from + row * stride : from;
    const std::int64_t width = row < rows ? head_dim : 0;
    for (std::int64_t d = 0; d < dim; d += kLanes) store(to + row * dim + d, load_some(source + d, width - d));
  }
}

void start(const Block& block, std::int64_t dim) {
  for (std::int64_t i = 0; i < kBlock * dim; ++i) block.sum[i] = 0;
  for (int query = 0; query < kBlock; ++query) block.highest[query] = -kInfinity;
  for (int query = 0; query < kBlock; ++query) block.total[query] = 0;
}

void store_act(float* to, Vec value, std::int64_t count) { store_some(to, value, count); }
void store_act(bf16* to, Vec value, std::int64_t count) {
  float wide[kLanes];
  store(wide, value);
  f32_to_bf16(wide, count < kLanes ? count : kLanes, to);
}

template <class T>
void store_queries(const Block& block, std::int64_t dim, std::int64_t stride, std::int64_t queries,
                   std::int64_t head_dim, T* out) {
  for (std::int64_t query = 0; query < queries; ++query) {
    for (std::int64_t d = 0; d < head_dim; d += kLanes) {
      store_act(out + query * stride + d, load(block.sum + query * dim + d) / block.total[query], head_dim - d);
    }
  }
}

/// One block's place in its tile.
struct Place {
  std::int64_t query;    // its first query, from the tile's first
  std::int64_t queries;  // at least 1
  std::int64_t offset;   // of that query and its head in q and out
};

/// Calls body(block, place) for every block of the tile that has queries.
template <class Body>
inline void for_blocks(const AttentionTile& tile, const Scratch& scratch, Body body) {
  const std::int64_t per_head = blocks_per_head(tile.group);
  for (std::int64_t head = 0; head < tile.group; ++head) {
    for (std::int64_t index = 0; index < per_head && index * kBlock < tile.queries; ++index) {
      const std::int64_t query = index * kBlock;
      body(scratch.block(head * per_head + index, tile.head_dim),
           Place{query, at_most(tile.queries - query, kBlock), query * tile.q_stride + head * tile.head_dim});
    }
  }
}

template <class T>
void attend(const AttentionTile& tile, const Scratch& scratch) {
  const std::int64_t head_dim = tile.head_dim;
  for_blocks(tile, scratch, [&](const Block& block, const Place& place) {
    start(block, scratch.dim);
    load_queries(static_cast<const T*>(tile.q) + place.offset, tile.q_stride, place.queries, head_dim, block);
  });
  const std::int64_t end = tile.first_query + tile.queries;  // no query of the tile sees a key from here on
  for (std::int64_t first_key = 0; first_key < end; first_key += kKeys) {
    const std::int64_t offset = first_key * tile.kv_stride;
    const std::int64_t rows = at_most(end - first_key, kKeys);
    load_keys(static_cast<const T*>(tile.k) + offset, tile.kv_stride, rows, head_dim, scratch.dim, scratch.keys);
    load_keys(static_cast<const T*>(tile.v) + offset, tile.kv_stride, rows, head_dim, scratch.dim, scratch.values);
    for_blocks(tile, scratch, [&](const Block& block, const Place& place) {
      const std::int64_t ahead = tile.first_query + place.query - first_key;
      const std::int64_t keys = at_most(ahead + place.queries, rows);
      if (keys <= 0) return;
      const Meeting meeting{place.queries, keys, ahead};
      scores(block, scratch, meeting, head_dim);
      softmax(block, scratch, meeting);
      add_values(block, scratch, meeting);
    });
  }
  for_blocks(tile, scratch, [&](const Block& block, const Place& place) {
    store_queries(block, scratch.dim, tile.q_stride, place.queries, head_dim, static_cast<T*>(tile.out) + place.offset);
  });
}

}  // namespace

std::int64_t attention_queries(std::int64_t group) { return blocks_per_head(group) * kBlock; }

std::int64_t attention_scratch(std::int64_t group, std::int64_t head_dim) {
  return Scratch::size(group * blocks_per_head(group), head_dim);
}

void attention(const AttentionTile& tile, float* base) {
  const Scratch scratch(base, tile.head_dim);
  if (tile.is_bf16) {
    attend<bf16>(tile, scratch);
  } else {
    attend<float>(tile, scratch);
  }
}

}  // namespace reap::REAP_ISA
