#include "driver/side_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string_view>

#include "driver/manifest.hpp"
#include "driver/model_card.hpp"
#include "driver/quantize_config.hpp"

namespace reap {
namespace {

/// "README.base.md", or with a number where the source has a file of that name.
std::string free_name(const std::vector<std::string>& taken) {
  std::string name = "README.base.md";
  for (int number = 2; std::ranges::binary_search(taken, name); ++number)
    name = fmt::format("README.base-{}.md", number);
  return name;
}

}  // namespace

std::vector<InheritedFile> inherited_side_files(const Checkpoint& source, bool quantised) {
  const std::vector<std::string> names = source.side_files();
  std::vector<InheritedFile> files;
  for (const std::string& name : names) {
    if (name == kManifestName || name == "run_log.json") continue;
    if (quantised && is_quantization_file(name)) continue;
    if (name != kCardName) {
      files.push_back({name, name});
    } else if (quantised || !is_model_card(card_head(source))) {
      files.push_back({free_name(names), name});
    }
  }
  return files;
}

std::vector<std::string> licence_files(const std::vector<InheritedFile>& files) {
  std::vector<std::string> licences;
  for (const InheritedFile& file : files) {
    std::string upper = file.name;
    std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    for (const std::string_view start : {"LICENSE", "LICENCE", "COPYING", "NOTICE"}) {
      if (upper.starts_with(start)) licences.push_back(file.name);
    }
  }
  return licences;
}

std::string base_card_name(const std::vector<InheritedFile>& files) {
  const auto found = std::ranges::find(files, kCardName, &InheritedFile::source);
  return found == files.end() ? "" : found->name;
}

}  // namespace reap
