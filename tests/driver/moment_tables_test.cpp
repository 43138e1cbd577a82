// Moments of inputs in saliency files: read back, refused where they are impossible, added and taken out, and handed to
// the weights that have those inputs.
#include "driver/moment_tables.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "driver/expect_error.hpp"
#include "driver/merge_saliency.hpp"
#include "driver/pruned_models.hpp"
#include "driver/saliency_importance.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLayers = 2, kExperts = 6, kTokens = 3, kTopK = 2;

/// The moments of some random rows.
void add_moments(Saliency& table, const Model& model, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<std::int64_t> value(-1000, 1000);
  const auto q = model.attention.heads * model.attention.head_dim;
  for (const auto& [kind, width] : {std::pair(InputKind::attention, model.hidden), std::pair(InputKind::output, q),
                                    std::pair(InputKind::experts, model.hidden)}) {
    InputMoments::Table& moments = table.moments.at(kind) = {width, {}};
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      std::vector<std::int64_t> a, b;
      for (std::int64_t i = 0; i < width; ++i) {
        a.push_back(value(random));
        b.push_back(value(random));
      }
      for (std::size_t i = 0; i < a.size(); ++i) {
        for (std::size_t j = 0; j <= i; ++j) moments.sums.push_back((a[i] * a[j] + b[i] * b[j]) * 1024);
      }
    }
  }
}

class MomentTables : public testing::Test {
 protected:
  SaliencyFile file(const std::string& calibration, unsigned seed) const {
    SaliencyFile made{{"minimax_m2",
                       source_.digest,
                       std::string(32, calibration[0]),
                       "fp32",
                       "cpu test",
                       4096,
                       1,
                       kTokens,
                       kTopK,
                       {"all"}},
                      Saliency(2, kLayers, kExperts)};
    for (std::int64_t layer = 0; layer < kLayers; ++layer) made.saliency.count(0, layer, 0) = kTokens;
    for (std::int64_t layer = 0; layer < kLayers; ++layer) made.saliency.count(0, layer, 1) = kTokens;
    add_moments(made.saliency, source_.model, seed);
    made.info.collected = made.saliency.collected();
    return made;
  }
  fs::path write(const SaliencyFile& made) const {
    write_saliency(directory_ / "s.h5", made);
    return directory_ / "s.h5";
  }

  Comm self_{MPI_COMM_SELF};
  TemporaryDirectory directory_;
  Source source_{all_open_source(self_, test_model("m2-mini-fp8"))};
};

TEST_F(MomentTables, ComeBackAsTheyWere) {
  const SaliencyFile made = file("a", 1);
  const SaliencyFile back = read_saliency(write(made));
  EXPECT_EQ(back.info.collected, (Collected{.moments = true}));
  EXPECT_EQ(back.saliency.moments, made.saliency.moments);
  const SaliencyFile planned = read_saliency_for_plans(directory_ / "s.h5");
  EXPECT_EQ(planned.info.collected, back.info.collected);
  EXPECT_TRUE(planned.saliency.moments.empty()) << "gigabytes that no plan asks for";
  const Hdf5Reader reader(directory_ / "s.h5");
  const std::int64_t width = source_.model.hidden;
  const std::vector<std::int64_t> last = read_moments(reader, InputKind::experts, kLayers, width, 1);
  const std::vector<std::int64_t>& all = made.saliency.moments.at(InputKind::experts).sums;
  EXPECT_TRUE(std::equal(last.begin(), last.end(), all.begin() + moment_count(width), all.end()));
  expect_error(ExitCode::bad_input, {"/moments/experts", "expected"},
               [&] { read_moments(reader, InputKind::experts, kLayers, width + 1, 1); });
}

TEST_F(MomentTables, RefusesWhatTheSquaresDoNotAllow) {
  for (const bool negative : {false, true}) {
    SaliencyFile made = file("a", 1);
    std::vector<std::int64_t>& sums = made.saliency.moments.at(InputKind::output).sums;
    const std::size_t layer = sums.size() / 2;
    sums[layer + (negative ? 2 : 1)] = negative ? -1 : kMomentEnd / 2;
    expect_error(ExitCode::bad_input, {"s.h5", "/moments/output", "layer 1", "damaged"},
                 [&] { read_saliency(write(made)); });
  }
  SaliencyFile made = file("a", 1);
  for (std::int64_t layer = 0; layer < kLayers; ++layer) made.saliency.moments.at(InputKind::attention).sums.pop_back();
  Hdf5Writer odd;
  odd.group("/moments");
  odd.dataset<std::int64_t>("/moments/attention", {2, 5}, std::vector<std::int64_t>(10));
  odd.save(directory_ / "odd.h5");
  expect_error(ExitCode::bad_input, {"/moments/attention", "5 moments are of no number of channels"},
               [&] { read_moment_tables(Hdf5Reader(directory_ / "odd.h5"), made.saliency); });
}

TEST_F(MomentTables, AreAddedAndTakenOut) {
  const SaliencyFile a = file("a", 1), b = file("b", 2);
  const SaliencyFile sum = add(a, b);
  for (const InputKind kind : kMomentKinds) {
    for (std::size_t i = 0; i < sum.saliency.moments.at(kind).sums.size(); ++i) {
      ASSERT_EQ(sum.saliency.moments.at(kind).sums[i],
                a.saliency.moments.at(kind).sums[i] + b.saliency.moments.at(kind).sums[i]);
    }
  }
  EXPECT_EQ(subtract(sum, b).saliency.moments, a.saliency.moments);
  SaliencyFile without = b;
  without.saliency.moments = {};
  EXPECT_TRUE(add(a, without).saliency.moments.empty());
}

TEST_F(MomentTables, BecomeTheFeedbackOfWeights) {
  const SaliencyFile made = file("a", 1);
  const SaliencyImportance importance(write(made), source_, 1);
  EXPECT_TRUE(importance.has_moments());
  EXPECT_EQ(importance.of("model.layers.1.self_attn.q_proj.weight", source_.model.hidden), std::nullopt);
  EXPECT_TRUE(importance.starved(0).empty());
  const auto expected = [&](InputKind kind, std::int64_t layer) {
    const InputMoments::Table& table = made.saliency.moments.at(kind);
    const auto size = static_cast<std::size_t>(moment_count(table.width));
    return feedback_of(std::span(table.sums).subspan(static_cast<std::size_t>(layer) * size, size), table.width)
        .factors;
  };
  const std::int64_t hidden = source_.model.hidden;
  const std::int64_t q = source_.model.attention.heads * source_.model.attention.head_dim;
  const auto shared = importance.feedback("model.layers.1.self_attn.q_proj.weight", hidden);
  EXPECT_EQ(shared->factors, expected(InputKind::attention, 1));
  EXPECT_EQ(importance.feedback("model.layers.1.self_attn.v_proj.weight", hidden), shared);
  EXPECT_EQ(importance.feedback("model.layers.0.self_attn.o_proj.weight", q)->factors, expected(InputKind::output, 0));
  for (const char* part : {"w1", "w3"}) {
    const std::string name = fmt::format("model.layers.0.block_sparse_moe.experts.5.{}.weight", part);
    EXPECT_EQ(importance.feedback(name, hidden)->factors, expected(InputKind::experts, 0));
  }
  EXPECT_EQ(importance.feedback("model.layers.0.block_sparse_moe.experts.5.w2.weight", source_.model.expert.inner),
            nullptr);
  EXPECT_EQ(importance.feedback("model.norm.weight", hidden), nullptr);
}

}  // namespace
}  // namespace reap
