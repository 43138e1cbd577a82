#pragma once

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/check.hpp"
#include "observe_fixture.hpp"
#include "random_checkpoint.hpp"

namespace reap::test {

/// A folder that all ranks see, with a random checkpoint in it; gone at the end.
class SharedFolder {
 public:
  SharedFolder(const Comm& world, const RandomModel& model) : world_{world} {
    const std::string mine = fmt::format("reap_grid_test_{}", getpid());
    path_ = std::filesystem::temp_directory_path() / world.all_broadcast(0, mine);
    if (world.rank() == 0) write_random_checkpoint(path_, model);
    world.all_barrier();
  }
  ~SharedFolder() {
    world_.all_barrier();
    if (world_.rank() == 0) std::filesystem::remove_all(path_);
  }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  const Comm& world_;
  std::filesystem::path path_;
};

/// Samples of unlike lengths in three domains; blocks of 64 tokens put some alone and some together.
inline Samples odd_samples(std::int64_t vocab) {
  const std::vector<std::int64_t> lengths{1, 17, 40, 3, 64, 90, 5, 2, 2, 33, 31, 1, 63, 70, 8};
  std::vector<std::int64_t> offsets{0};
  std::vector<std::uint8_t> domain;
  std::vector<std::int32_t> tokens;
  for (std::size_t sample = 0; sample < lengths.size(); ++sample) {
    offsets.push_back(offsets.back() + lengths[sample]);
    domain.push_back(static_cast<std::uint8_t>(sample % 3));
    for (std::int64_t i = 0; i < lengths[sample]; ++i) {
      tokens.push_back(static_cast<std::int32_t>((offsets.back() * 31 + i * i * 7) % vocab));
    }
  }
  return samples_in_memory(std::move(offsets), std::move(tokens), std::move(domain), 3);
}

inline std::vector<Grid> grids(int ranks, const Model& model) {
  std::vector<Grid> all;
  for (int pp = 1; pp <= ranks && pp <= model.layers; ++pp) {
    for (int ep = 1; ep <= ranks && ep <= model.router.experts; ++ep) {
      if (ranks % (pp * ep) == 0) all.push_back({pp, ep, ranks / (pp * ep)});
    }
  }
  return all;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Sums of a pass over `world`, against those of a pass in one piece on one rank.
inline void expect_same(const Comm& world, const Saliency& got, const Saliency& expected) {
  EXPECT_TRUE(same_bits(got.sums, expected.sums));
  EXPECT_TRUE(same_bits(got.max_abs, expected.max_abs));
  const bool first = world.rank() == 0;  // the only one that has them
  EXPECT_TRUE(same_bits(got.gram, first ? expected.gram : std::vector<std::int64_t>()));
  EXPECT_TRUE(same_bits(got.outputs, first ? expected.outputs : std::vector<std::int64_t>()));
  EXPECT_TRUE(got.imatrix == (first ? expected.imatrix : Imatrix()));
  EXPECT_TRUE(got.moments == (first ? expected.moments : InputMoments()));
}

}  // namespace reap::test
