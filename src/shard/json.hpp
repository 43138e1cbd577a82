#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace reap {

using Json = nlohmann::ordered_json;

/// Parses strictly: one document, no duplicate keys in any object (escaped aliases such as "\u0061" for "a" are
/// the same key), no comments, valid UTF-8. `what` names the text in errors ("model/config.json").
/// @throws Error(bad_input) naming `what`, the offset or the key
Json parse_json(std::string_view text, std::string_view what);

/// A copy of the JSON object `text` in which the value of the top-level member `key` is `value` (JSON text), every other
/// byte untouched. A missing member is added after the last one, in the object's own indentation.
std::string with_member(std::string_view text, std::string_view key, std::string_view value);

}  // namespace reap
