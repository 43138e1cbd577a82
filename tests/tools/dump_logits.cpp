// dump_logits MODEL OUT.npy < tokens: logits [tokens, vocab] of one sequence in fp32, as a numpy file. For tests that
// compare our forward pass with another program's.
#include <fmt/format.h>

#include <bit>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <vector>

#include "shard/block.hpp"
#include "shard/families.hpp"
#include "shard/head.hpp"
#include "shard/layer.hpp"

namespace {

using namespace reap;

std::vector<std::int32_t> read_tokens(std::istream& in, std::int64_t vocab) {
  std::vector<std::int32_t> tokens;
  for (std::int32_t token = 0; in >> token;) {
    if (token < 0 || token >= vocab) throw std::out_of_range(fmt::format("token {} is not in the vocabulary", token));
    tokens.push_back(token);
  }
  return tokens;
}

/// The logits of one sequence, layer by layer with one layer in memory.
std::vector<float> logits_of(const Checkpoint& checkpoint, const Model& model,
                             const std::vector<std::int32_t>& tokens) {
  const auto rows = static_cast<std::int64_t>(tokens.size());
  Samples samples;
  samples.offsets = {0, rows};
  samples.domain = {0};
  samples.domains = 1;
  const Block block = make_blocks(samples.offsets, rows).front();
  const std::unique_ptr<Backend> backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  const Placement placement = place(model, {1, 1, 1}, 0);
  NoLink link;
  BlockForward forward(model, placement, *backend, link, rows);
  BlockRows block_rows(*backend, rows);
  block_rows.set(samples, block);

  std::vector<float> x(static_cast<std::size_t>(rows * model.hidden));
  const Embedding embedding = load_embedding(checkpoint, model, *backend);
  backend->embed(embedding.table.data(), embedding.dtype, model.hidden, tokens.data(), rows, x.data());
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    const LayerWeights weights = load_layer(checkpoint, model, layer, {0, model.router.experts}, *backend);
    forward.all_layer(weights, weights.gate_bias.data(), block_rows, x.data());
  }
  std::vector<float> result(static_cast<std::size_t>(rows * model.vocab));
  const Head head = load_head(checkpoint, model, *backend);
  HeadForward(model, head, *backend)
      .logits(x.data(), rows, [&](std::int64_t first, std::int64_t tile, const float* logits) {
        std::copy_n(logits, tile * model.vocab, result.data() + first * model.vocab);
      });
  return result;
}

void write_npy(const char* path, const std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
  static_assert(std::endian::native == std::endian::little);
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {})}}", rows, columns);
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10, ' ');  // magic, version and length are 10 bytes
  header.back() = '\n';
  std::ofstream out(path, std::ios::binary);
  out.write("\x93NUMPY\x01\x00", 8);
  out.put(static_cast<char>(header.size() & 0xFF)).put(static_cast<char>(header.size() >> 8));
  out << header;
  out.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!out.flush()) throw std::runtime_error(fmt::format("cannot write {}", path));
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::fputs("usage: dump_logits MODEL OUT.npy < tokens\n", stderr);
    return 2;
  }
  const Checkpoint checkpoint(argv[1]);
  const Model model = describe_model(checkpoint);
  claim_tensors(checkpoint, model);
  const std::vector<std::int32_t> tokens = read_tokens(std::cin, model.vocab);
  write_npy(argv[2], logits_of(checkpoint, model, tokens), static_cast<std::int64_t>(tokens.size()), model.vocab);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "dump_logits: %s\n", error.what());
  return 1;
}
