#pragma once

#include <string>
#include <vector>

#include "shard/checkpoint.hpp"

namespace reap {

/// A side file that pruned models get a copy of.
struct InheritedFile {
  std::string name;    // in the pruned model
  std::string source;  // in the source
};

/// The side files of a source that its pruned models get: all but those that this program wrote about the source
/// itself (it may be a pruned model), which do not hold for what is made from it. A README.md of others makes room for
/// the model card.
/// @param quantised  the output's weights are of another type: a card of ours stays too, as that of the model they were
///                   made from, and files that describe quantised weights go
std::vector<InheritedFile> inherited_side_files(const Checkpoint& source, bool quantised);

/// Those that by their names say what one may do with the model.
std::vector<std::string> licence_files(const std::vector<InheritedFile>& files);

/// The name that the source's README.md has got; "" when there is none.
std::string base_card_name(const std::vector<InheritedFile>& files);

}  // namespace reap
