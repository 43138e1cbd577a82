// The field sums of whole calibration files against an independent float64 implementation.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "golden.hpp"
#include "kernels/check.hpp"
#include "observe_fixture.hpp"

namespace reap {
namespace {

using test::GoldenFile;

constexpr double kFp32Relative = 1e-4;  // of every field; two fp32 implementations differ by about 4e-7
constexpr double kNearTie = 1e-6;       // margins below this may fall either way in fp32
constexpr double kNearTieRelative =
    1e-3;  // a choice that fell the other way moved REAP by up to 2.7e-4 in the reference
constexpr std::int64_t kNearTieChoices = 4;  // per layer, of 179,680 choices
constexpr double kBf16Choices = 0.01;        // bf16 rounding moves up to 0.7 % of the choices
constexpr double kBf16MedianReap = 0.01;     // and REAP by 3e-3 in the median

struct SaliencyCase {
  const char* model;
  const char* tokens;
  bool bundled;
};

struct Inputs {
  std::filesystem::path checkpoint, tokens, golden;
  explicit Inputs(const SaliencyCase& c)
      : checkpoint{c.bundled ? test::data(c.model) : test::shared(std::filesystem::path("checkpoints") / c.model)},
        tokens{c.bundled ? test::data(std::string(c.tokens) + ".h5")
                         : test::shared(std::filesystem::path("calibration") / (std::string(c.tokens) + ".h5"))} {
    const auto path = std::filesystem::path("goldens") / c.model / fmt::format("saliency_{}.h5", c.tokens);
    golden = c.bundled ? test::data(path) : test::shared(path);
  }
  bool present() const { return std::filesystem::exists(checkpoint) && std::filesystem::exists(golden); }
};

FieldTotals observe(const Inputs& inputs, Compute compute) {
  const test::Observer observer(inputs.checkpoint, test::read_samples(inputs.tokens), 4096);
  return totals(observer.all_run(Comm(MPI_COMM_SELF), {1, 1, 1}, compute));
}

/// Choices of one layer that fell differently: each takes a slot from one expert and gives it to another.
std::int64_t moved_choices(const FieldTotals& got, const std::vector<std::int64_t>& expected, std::int64_t layer) {
  std::int64_t difference = 0;
  for (std::int64_t expert = 0; expert < got.experts; ++expert) {
    const auto cell = static_cast<std::size_t>(layer * got.experts + expert);
    difference += std::abs(got.count[cell] - expected[cell]);
  }
  return (difference + 1) / 2;
}

std::string case_name(const testing::TestParamInfo<SaliencyCase>& info) {
  std::string name = std::string(info.param.model) + "_" + info.param.tokens;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class GoldenSaliency : public testing::TestWithParam<SaliencyCase> {};

TEST_P(GoldenSaliency, Fp32FieldsAgree) {
  const Inputs inputs(GetParam());
  if (!inputs.present()) GTEST_SKIP() << inputs.checkpoint << " is not here (larger test files, REAP_SHARED)";
  const FieldTotals got = observe(inputs, Compute::fp32);
  const GoldenFile golden(inputs.golden);
  const auto count = golden.integers("model/count");
  const auto margin = golden.reals("min_topk_margin");

  // A choice that falls the other way in one layer shows in all later ones.
  double tolerance = kFp32Relative;
  for (std::int64_t layer = 0; layer < got.layers; ++layer) {
    const std::int64_t moved = moved_choices(got, count, layer);
    if (moved > 0 && tolerance == kFp32Relative) {
      EXPECT_LT(margin[static_cast<std::size_t>(layer)], kNearTie) << "layer " << layer << " had no near tie";
      tolerance = kNearTieRelative;
    }
    EXPECT_LE(moved, kNearTieChoices) << "layer " << layer;
    const auto compare = [&](const char* name, const std::vector<double>& values) {
      const auto expected = golden.reals(std::string("model/") + name);
      for (std::int64_t expert = 0; expert < got.experts; ++expert) {
        const auto cell = static_cast<std::size_t>(layer * got.experts + expert);
        if (got.count[cell] != count[cell]) continue;
        EXPECT_NEAR(values[cell], expected[cell], tolerance * expected[cell])
            << name << " layer " << layer << " expert " << expert;
      }
    };
    constexpr std::array<const char*, kFields.size()> kGoldenNames{"sum_g", "sum_norm", "sum_gnorm", "sum_norm2",
                                                                   "sum_gnorm2"};
    for (const FieldInfo& info : kFields) {
      const auto field = static_cast<std::size_t>(info.field);
      compare(kGoldenNames[field], got.sum[field]);
    }
    compare("max_absact", got.max_abs);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, GoldenSaliency,
    testing::Values(SaliencyCase{"m2-mini-bf16", "random_v211", true}, SaliencyCase{"m2-mini-fp8", "random_v211", true},
                    SaliencyCase{"m2-nano-fp8", "calib_64x512", true}, SaliencyCase{"m2-nano-fp8", "calib_odd", false},
                    SaliencyCase{"m2-nano-bf16", "calib_64x512", false},
                    SaliencyCase{"m2-nano-bf16", "calib_odd", false}, SaliencyCase{"m2-odd-bf16", "random_v331", false},
                    SaliencyCase{"m2-odd-fp8", "random_v331", false}, SaliencyCase{"m2-tiny-bf16", "calib_odd", false},
                    SaliencyCase{"m2-tiny-bf16", "calib_mixed", false}),
    case_name);

class GoldenSaliencyBf16 : public testing::TestWithParam<SaliencyCase> {};

TEST_P(GoldenSaliencyBf16, CountsAndMedianReapAgree) {
  const Inputs inputs(GetParam());
  if (!inputs.present()) GTEST_SKIP() << inputs.checkpoint << " is not here (larger test files, REAP_SHARED)";
  const FieldTotals got = observe(inputs, Compute::bf16);
  const GoldenFile golden(inputs.golden);
  const auto count = golden.integers("model/count");
  const auto reap = golden.reals("model/reap");
  const auto& gate_norm = got.sum[static_cast<std::size_t>(Field::gate_norm)];
  std::int64_t slots = 0;
  std::int64_t moved = 0;
  std::vector<double> differences;
  for (std::int64_t layer = 0; layer < got.layers; ++layer) {
    moved += moved_choices(got, count, layer);
    for (std::int64_t expert = 0; expert < got.experts; ++expert) {
      const auto cell = static_cast<std::size_t>(layer * got.experts + expert);
      slots += count[cell];
      if (count[cell] == 0) continue;
      const double mine = gate_norm[cell] / static_cast<double>(std::max<std::int64_t>(1, got.count[cell]));
      differences.push_back(std::abs(mine - reap[cell]) / reap[cell]);
    }
  }
  EXPECT_LE(static_cast<double>(moved), kBf16Choices * static_cast<double>(slots));
  const auto middle = differences.begin() + static_cast<std::ptrdiff_t>(differences.size() / 2);
  std::nth_element(differences.begin(), middle, differences.end());
  EXPECT_LE(*middle, kBf16MedianReap);
  RecordProperty("moved_choices", fmt::format("{} of {}", moved, slots));
  RecordProperty("median_reap_difference", fmt::format("{:.2e}", *middle));
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenSaliencyBf16,
                         testing::Values(SaliencyCase{"m2-nano-fp8", "calib_64x512", true},
                                         SaliencyCase{"m2-nano-bf16", "calib_64x512", false},
                                         SaliencyCase{"m2-tiny-bf16", "calib_mixed", false}),
                         case_name);

}  // namespace
}  // namespace reap
