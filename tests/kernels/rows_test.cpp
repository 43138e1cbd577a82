#include <cmath>
#include <limits>

#include "backends.hpp"
#include "values.hpp"

namespace reap {
namespace {

using test::act_buffer;
using test::as_act;
using test::download;
using test::download_act;
using test::random_values;
using test::upload;
using test::upload_act;

/// fp32 sums of a few thousand values in 32 lanes.
constexpr double kFp32Norm = 1e-6;

class Embed : public test::BackendTest {};
REAP_TEST_ON_BACKENDS(Embed);

TEST_P(Embed, WidensRowsOfEveryType) {
  constexpr std::int64_t kHidden = 41;
  constexpr std::int64_t kVocab = 7;
  std::vector<std::uint16_t> codes;
  for (std::int64_t i = 0; i < kVocab * kHidden; ++i) {
    codes.push_back(static_cast<std::uint16_t>(i * 197 & 0xbbff));  // finite as bf16 and as f16
  }
  std::vector<float> floats = random_values(kVocab * kHidden, 1);
  const std::vector<std::int32_t> tokens{6, 0, 3, 3, 5};
  const auto on_device = upload(*backend, tokens);
  const auto x = upload(*backend, std::vector<float>(tokens.size() * kHidden));

  const auto check = [&](const auto& table, DType dtype, auto&& widen) {
    const auto raw = upload(*backend, table);
    backend->embed(raw.data(), dtype, kHidden, on_device.data(), 5, x.data());
    const std::vector<float> got = download(*backend, x);
    for (std::size_t i = 0; i < got.size(); ++i) {
      const auto at = static_cast<std::size_t>(tokens[i / kHidden]) * kHidden + i % kHidden;
      ASSERT_EQ(got[i], widen(table[at])) << name_of(dtype) << " element " << i;
    }
  };
  check(floats, DType::f32, [](float value) { return value; });
  check(codes, DType::bf16, [](std::uint16_t code) { return to_float(bf16{code}); });
  check(codes, DType::f16, f16_to_float);
  backend->embed(nullptr, DType::bf16, kHidden, nullptr, 0, nullptr);  // no rows
}

class RmsNorm : public test::BackendTest {};
REAP_TEST_ON_BACKENDS(RmsNorm);

TEST_P(RmsNorm, ByHand) {
  const auto x = upload<float>(*backend, {3, 4, 0, 0});  // mean of squares 25 / 4
  const auto weight = upload<float>(*backend, {1, 2, 3, 4});
  const auto y = upload<float>(*backend, std::vector<float>(4));
  backend->rms_norm(x.data(), weight.data(), 0.0f, 1, 4, y.data(), nullptr);
  const std::vector<float> got = download(*backend, y);
  EXPECT_FLOAT_EQ(got[0], 1.2f);
  EXPECT_FLOAT_EQ(got[1], 3.2f);
  EXPECT_EQ(got[2], 0.0f);
}

TEST_P(RmsNorm, EveryWidthInBothOutputs) {
  for (const std::int64_t width : {1, 24, 31, 33, 100, 3072}) {
    constexpr std::int64_t kRows = 5;
    constexpr float kEps = 1e-6f;
    const std::vector<float> x = random_values(kRows * width, 2, -3, 5);
    const std::vector<float> weight = random_values(width, 3, 0.5f, 1.5f);
    const auto x_device = upload(*backend, x);
    const auto weight_device = upload(*backend, weight);
    const auto y = upload(*backend, std::vector<float>(x.size()));
    const auto act = act_buffer(*backend, kRows * width);
    const auto act_alone = act_buffer(*backend, kRows * width);
    backend->rms_norm(x_device.data(), weight_device.data(), kEps, kRows, width, y.data(), act.data());
    backend->rms_norm(x_device.data(), weight_device.data(), kEps, kRows, width, nullptr, act_alone.data());
    const std::vector<float> got = download(*backend, y);
    EXPECT_EQ(download(*backend, act), download(*backend, act_alone));
    const std::vector<float> rounded = download_act(*backend, act);

    for (std::int64_t row = 0; row < kRows; ++row) {
      double squares = 0;
      for (std::int64_t i = 0; i < width; ++i) squares += std::pow(x[static_cast<std::size_t>(row * width + i)], 2.0);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + kEps);
      for (std::int64_t i = 0; i < width; ++i) {
        const auto at = static_cast<std::size_t>(row * width + i);
        const double expected = x[at] * scale * weight[static_cast<std::size_t>(i)];
        ASSERT_NEAR(got[at], expected, kFp32Norm * (std::abs(expected) + 1e-3)) << "width " << width << " row " << row;
        ASSERT_EQ(rounded[at], as_act(*backend, got[at]));
      }
    }
  }
}

TEST_P(RmsNorm, ARowDoesNotDependOnItsNeighboursOrOnThreads) {
  constexpr std::int64_t kRows = 37;
  constexpr std::int64_t kWidth = 67;
  const auto x = upload(*backend, random_values(kRows * kWidth, 4));
  const auto weight = upload(*backend, random_values(kWidth, 5));
  const auto all = upload(*backend, std::vector<float>(kRows * kWidth));
  const auto one = upload(*backend, std::vector<float>(kRows * kWidth));
  backend->rms_norm(x.data(), weight.data(), 1e-6f, kRows, kWidth, all.data(), nullptr);
  const auto alone = GetParam().make(1);
  for (std::int64_t row = 0; row < kRows; ++row) {
    alone->rms_norm(x.data() + row * kWidth, weight.data(), 1e-6f, 1, kWidth, one.data() + row * kWidth, nullptr);
  }
  EXPECT_EQ(download(*backend, all), download(*alone, one));
}

class GatherRows : public test::BackendTest {};
REAP_TEST_ON_BACKENDS(GatherRows);

TEST_P(GatherRows, OfEveryWidthInAnyOrder) {
  const std::vector<std::int32_t> row{6, 0, 3, 3, 5};
  for (const std::int64_t width : {1, 4, 12, 16, 6144, 33}) {  // bytes
    std::vector<std::uint8_t> from(static_cast<std::size_t>(7 * width));
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::uint8_t>(i * 37 % 251);
    const auto on_device = upload(*backend, from);
    const auto gathered = upload(*backend, std::vector<std::uint8_t>(row.size() * static_cast<std::size_t>(width)));
    backend->gather_rows(gathered.data(), on_device.data(), row.data(), 5, width);
    const auto copied = upload(*backend, std::vector<std::uint8_t>(static_cast<std::size_t>(gathered.size())));
    backend->copy(copied.data(), gathered.data(), static_cast<std::size_t>(gathered.bytes()));
    const std::vector<std::uint8_t> got = download(*backend, copied);
    for (std::size_t i = 0; i < got.size(); ++i) {
      const auto at = static_cast<std::size_t>(row[i / static_cast<std::size_t>(width)] * width) +
                      i % static_cast<std::size_t>(width);
      ASSERT_EQ(got[i], from[at]) << "width " << width << " byte " << i;
    }
  }
  backend->gather_rows(nullptr, nullptr, nullptr, 0, 8);
  backend->copy(nullptr, nullptr, 0);
}

class Combine : public test::BackendTest {};
REAP_TEST_ON_BACKENDS(Combine);

TEST_P(Combine, AddsGatedOutputsInAscendingOrder) {
  constexpr std::int64_t kRows = 9;
  constexpr std::int64_t kTopK = 3;
  constexpr double kFourRoundings = 4 * 0x1p-24 * 4;  // of sums below 4
  for (const std::int64_t hidden : {1, 16, 50, 200}) {
    const std::vector<float> f = random_values(kRows * kTopK * hidden, 6);
    const std::vector<float> gate = random_values(kRows * kTopK, 7, 0, 1);
    const std::vector<float> before = random_values(kRows * hidden, 8);
    std::vector<std::int32_t> position;
    for (std::int64_t slot = 0; slot < kRows * kTopK; ++slot) {
      position.push_back(static_cast<std::int32_t>(slot * 4 % (kRows * kTopK)));
    }
    const auto f_device = upload_act(*backend, f);
    const auto gate_device = upload(*backend, gate);
    const auto position_device = upload(*backend, position);
    const auto x = upload(*backend, before);
    backend->combine(f_device.data(), position_device.data(), gate_device.data(), kRows, kTopK, hidden, x.data());
    const std::vector<float> got = download(*backend, x);
    for (std::int64_t i = 0; i < kRows * hidden; ++i) {
      double expected = before[static_cast<std::size_t>(i)];
      for (std::int64_t j = 0; j < kTopK; ++j) {
        const auto slot = static_cast<std::size_t>(i / hidden * kTopK + j);
        const auto at = static_cast<std::size_t>(position[slot] * hidden + i % hidden);
        expected += static_cast<double>(gate[slot]) * as_act(*backend, f[at]);
      }
      ASSERT_NEAR(got[static_cast<std::size_t>(i)], expected, kFourRoundings) << "hidden " << hidden << " at " << i;
    }
  }
  backend->combine(nullptr, nullptr, nullptr, 0, kTopK, 16, nullptr);  // no rows
}

}  // namespace
}  // namespace reap
