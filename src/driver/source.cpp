#include "driver/source.hpp"

#include <optional>
#include <utility>

#include "driver/digest.hpp"
#include "kernels/check.hpp"

namespace reap {

Source all_open_source(const Comm& world, const std::filesystem::path& directory) {
  std::optional<Source> source;
  world.all_try([&] {
    if (directory.empty()) fail(ExitCode::usage, "--model is missing: the checkpoint directory");
    Checkpoint checkpoint(directory);
    Model model = describe_model(checkpoint);
    std::vector<Claim> claims = claim_tensors(checkpoint, model);
    std::string digest = model_digest(checkpoint);
    source.emplace(Source{std::move(checkpoint), std::move(model), std::move(claims), std::move(digest)});
  });
  return std::move(*source);
}

}  // namespace reap
