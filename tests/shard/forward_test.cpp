// The forward pass against an independent float64 implementation, value by value.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "golden.hpp"
#include "kernels/check.hpp"
#include "observe_fixture.hpp"
#include "shard/block.hpp"
#include "shard/families.hpp"
#include "shard/head.hpp"

namespace reap {
namespace {

using test::GoldenFile;

constexpr double kFp32Relative =
    1e-4;                          // of the largest value of a vector; two fp32 implementations differ by about 1e-6
constexpr double kNearTie = 1e-6;  // choice scores closer than this may fall either way

struct GoldenCase {
  const char* name;
  bool bundled;
};

std::filesystem::path checkpoint_of(const GoldenCase& c) {
  return c.bundled ? test::data(c.name) : test::shared(std::filesystem::path("checkpoints") / c.name);
}

std::filesystem::path goldens_of(const GoldenCase& c) {
  const auto path = std::filesystem::path("goldens") / c.name / "forward.h5";
  return c.bundled ? test::data(path) : test::shared(path);
}

/// Compares row `row` of two arrays of `width` values, relative to the row's largest golden value.
template <class Got>
void expect_close(const char* what, const Got* got, const std::vector<double>& expected, std::int64_t row,
                  std::int64_t width) {
  const double* want = expected.data() + row * width;
  double largest = 0;
  for (std::int64_t i = 0; i < width; ++i) largest = std::max(largest, std::abs(want[i]));
  for (std::int64_t i = 0; i < width; ++i) {
    ASSERT_NEAR(static_cast<double>(got[i]), want[i], kFp32Relative * largest) << what << " row " << row << " at " << i;
  }
}

double norm_of(const float* x, std::int64_t width) {
  double sum = 0;
  for (std::int64_t i = 0; i < width; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return std::sqrt(sum);
}

/// All sequences of a golden file, as samples.
struct Sequences {
  std::vector<std::string> names;
  Samples samples;
};

Sequences read_sequences(const GoldenFile& golden) {
  Sequences sequences{golden.members(), {}};
  std::vector<std::int64_t> offsets{0};
  std::vector<std::int32_t> tokens;
  for (const std::string& name : sequences.names) {
    for (const std::int64_t token : golden.integers(name + "/tokens"))
      tokens.push_back(static_cast<std::int32_t>(token));
    offsets.push_back(static_cast<std::int64_t>(tokens.size()));
  }
  sequences.samples = test::samples_in_memory(offsets, tokens, std::vector<std::uint8_t>(sequences.names.size()), 1);
  return sequences;
}

/// Takes blocks through a whole model on one rank and compares all that passes by. In the host memory of the CPU
/// backend.
class Comparison {
 public:
  Comparison(const std::filesystem::path& checkpoint, const std::filesystem::path& golden)
      : golden_{golden},
        sequences_{read_sequences(golden_)},
        checkpoint_{checkpoint},
        model_{describe_model(checkpoint_)},
        backend_{make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic)},
        embedding_{load_embedding(checkpoint_, model_, *backend_)},
        head_{load_head(checkpoint_, model_, *backend_)} {
    for (std::int64_t layer = 0; layer < model_.layers; ++layer) {
      layers_.push_back(load_layer(checkpoint_, model_, layer, {0, model_.router.experts}, *backend_));
    }
  }

  void run(std::int64_t block_tokens) {
    const std::vector<Block> blocks = make_blocks(sequences_.samples.offsets, block_tokens);
    const std::int64_t tokens = sequences_.samples.tokens();
    NoLink link;
    const Placement placement = place(model_, {1, 1, 1}, 0);
    BlockForward forward(model_, placement, *backend_, link, tokens);
    BlockRows rows(*backend_, tokens);
    diverged_.assign(sequences_.names.size(), false);
    for (const Block& block : blocks) {
      rows.set(sequences_.samples, block);
      std::vector<float> x(static_cast<std::size_t>(block.rows() * model_.hidden));
      const auto ids = sequences_.samples.read_tokens(block.begin, block.end);
      backend_->embed(embedding_.table.data(), embedding_.dtype, model_.hidden, ids.data(), block.rows(), x.data());
      for (std::int64_t layer = 0; layer < model_.layers; ++layer) {
        const LayerWeights& weights = layers_[static_cast<std::size_t>(layer)];
        const LayerTrace trace = forward.all_layer(weights, weights.gate_bias.data(), rows, x.data());
        check_layer(layer, block, trace, x.data());
      }
      check_head(block, x.data());
    }
    EXPECT_EQ(std::count(diverged_.begin(), diverged_.end(), true), 0) << "sequences not compared to their end";
  }

 private:
  template <class Check>
  void each_sequence(const Block& block, Check check) {
    for (std::int64_t s = block.first; s < block.last; ++s) {
      if (diverged_[static_cast<std::size_t>(s)]) continue;
      const std::int64_t first = sequences_.samples.offsets[static_cast<std::size_t>(s)];
      const std::int64_t length = sequences_.samples.offsets[static_cast<std::size_t>(s) + 1] - first;
      check(static_cast<std::size_t>(s), first - block.begin, length);
      if (testing::Test::HasFatalFailure()) return;
    }
  }

  void check_layer(std::int64_t layer, const Block& block, const LayerTrace& trace, const float* x) {
    each_sequence(block, [&](std::size_t s, std::int64_t first, std::int64_t length) {
      const std::string at = fmt::format("{}/layer{}/", sequences_.names[s], layer);
      SCOPED_TRACE(at);
      check_routing(s, layer, at, trace, first, length);
      if (diverged_[s] || testing::Test::HasFatalFailure()) return;
      const auto input_norm = golden_.reals(at + "moe_input_norm");
      const auto hidden_norm = golden_.reals(at + "hidden_norm");
      for (std::int64_t row = 0; row < length; ++row) {
        const double input = norm_of(trace.moe_input + (first + row) * model_.hidden, model_.hidden);
        const double hidden = norm_of(x + (first + row) * model_.hidden, model_.hidden);
        expect_close("moe_input_norm", &input, input_norm, row, 1);
        expect_close("hidden_norm", &hidden, hidden_norm, row, 1);
      }
      expect_close("hidden_last", x + (first + length - 1) * model_.hidden, golden_.reals(at + "hidden_last"), 0,
                   model_.hidden);
    });
  }

  void check_routing(std::size_t s, std::int64_t layer, const std::string& at, const LayerTrace& trace,
                     std::int64_t first, std::int64_t length) {
    const auto logits = golden_.reals(at + "router_logits");
    const auto experts = golden_.integers(at + "experts");
    const auto weights = golden_.reals(at + "weights");
    const auto norms = golden_.reals(at + "expert_norms");
    const std::int64_t top_k = model_.router.top_k;
    for (std::int64_t row = 0; row < length; ++row) {
      expect_close("router_logits", trace.logits + (first + row) * model_.router.experts, logits, row,
                   model_.router.experts);
      const std::int64_t slot = (first + row) * top_k;
      const std::vector<std::int64_t> got(trace.expert + slot, trace.expert + slot + top_k);
      const std::vector<std::int64_t> want(experts.begin() + row * top_k, experts.begin() + (row + 1) * top_k);
      if (got != want) {
        expect_near_tie(layer, got, want, logits.data() + row * model_.router.experts);
        diverged_[s] = true;
        return;
      }
      for (std::int64_t j = 0; j < top_k; ++j) {
        expect_close("weights", trace.gate_value + slot + j, weights, row * top_k + j, 1);
        expect_close("expert_norms", trace.norm + trace.position[slot + j], norms, row * top_k + j, 1);
      }
    }
  }

  /// The choices may differ only in experts whose choice scores nearly agree.
  void expect_near_tie(std::int64_t layer, const std::vector<std::int64_t>& got, const std::vector<std::int64_t>& want,
                       const double* logits) {
    std::vector<std::int64_t> different;
    std::set_symmetric_difference(got.begin(), got.end(), want.begin(), want.end(), std::back_inserter(different));
    ASSERT_FALSE(different.empty()) << "experts not in ascending order";
    std::vector<double> scores;
    for (const std::int64_t expert : different) {
      const float* bias = layers_[static_cast<std::size_t>(layer)].gate_bias.data();
      scores.push_back(1 / (1 + std::exp(-logits[expert])) + static_cast<double>(bias[expert]));
    }
    const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
    ASSERT_LT(*high - *low, kNearTie) << "another choice of experts";
  }

  void check_head(const Block& block, const float* x) {
    const std::int64_t vocab = model_.vocab;
    std::vector<float> all(static_cast<std::size_t>(block.rows() * vocab));
    HeadForward(model_, head_, *backend_)
        .logits(x, block.rows(), [&](std::int64_t first, std::int64_t rows, const float* logits) {
          std::copy_n(logits, rows * vocab, all.data() + first * vocab);
        });
    const auto ids = sequences_.samples.read_tokens(block.begin, block.end);
    each_sequence(block, [&](std::size_t s, std::int64_t first, std::int64_t length) {
      const std::string& name = sequences_.names[s];
      SCOPED_TRACE(name);
      const auto logits = golden_.reals(name + "/logits");
      const std::int64_t kept = golden_.shape(name + "/logits")[0];  // all positions, or the last one
      for (std::int64_t row = 0; row < kept; ++row) {
        expect_close("logits", all.data() + (first + length - kept + row) * vocab, logits, row, vocab);
      }
      if (length == 1) return;
      const auto logprob = golden_.reals(name + "/logprob_next");
      for (std::int64_t row = 0; row + 1 < length; ++row) {
        const float* l = all.data() + (first + row) * vocab;
        const double top = static_cast<double>(*std::max_element(l, l + vocab));
        const double sum = std::accumulate(l, l + vocab, 0.0, [&](double total, float logit) {
          return total + std::exp(static_cast<double>(logit) - top);
        });
        const auto next = static_cast<std::size_t>(first + row + 1);
        const double got = static_cast<double>(l[ids[next]]) - top - std::log(sum);
        const double want = logprob[static_cast<std::size_t>(row)];
        // The difference of two logits: relative to the logits, where the log probability itself is near zero.
        ASSERT_NEAR(got, want, kFp32Relative * std::max(std::abs(want), std::abs(top))) << "logprob_next row " << row;
      }
    });
  }

  GoldenFile golden_;
  Sequences sequences_;
  Checkpoint checkpoint_;
  Model model_;
  std::unique_ptr<Backend> backend_;
  Embedding embedding_;
  Head head_;
  std::vector<LayerWeights> layers_;
  std::vector<bool> diverged_;  // [sequences] a near tie fell the other way: later values differ
};

std::string case_name(const testing::TestParamInfo<GoldenCase>& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class Forward : public testing::TestWithParam<GoldenCase> {};

TEST_P(Forward, AgreesWithGolden) {
  const GoldenCase c = GetParam();
  if (!std::filesystem::exists(checkpoint_of(c))) {
    GTEST_SKIP() << checkpoint_of(c) << " is not here (larger test files, REAP_SHARED)";
  }
  Comparison comparison(checkpoint_of(c), goldens_of(c));
  comparison.run(1);          // each sequence alone
  comparison.run(1'000'000);  // all in one block: samples must not see each other
}

INSTANTIATE_TEST_SUITE_P(Models, Forward,
                         testing::Values(GoldenCase{"m2-mini-bf16", true}, GoldenCase{"m2-mini-fp8", true},
                                         GoldenCase{"m2-nano-fp8", true}, GoldenCase{"m2-nano-bf16", false},
                                         GoldenCase{"m2-odd-bf16", false}, GoldenCase{"m2-odd-fp8", false},
                                         GoldenCase{"m2-tiny-bf16", false}),
                         case_name);

}  // namespace
}  // namespace reap
