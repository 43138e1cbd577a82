#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace reap {

/// Objects keep the order of their members. Finding a member by its key is linear: build an own map over large objects.
using Json = nlohmann::ordered_json;

/// Parses strictly: one document, no duplicate keys in any object (escaped aliases such as "\u0061" for "a" are
/// the same key), no comments, valid UTF-8, at most 128 levels deep. Linear in the text. `what` names the text in
/// errors ("model/config.json").
/// @throws Error(bad_input) naming `what`, the offset or the key
Json parse_json(std::string_view text, std::string_view what);

/// A copy of the JSON object `text` in which the value of the top-level member `key` is `value` (JSON text), every
/// other byte untouched. A missing member is added after the last one, in the object's own indentation.
/// @throws Error(bad_input) when `text` is not an object or either text is not valid
std::string with_member(std::string_view text, std::string_view key, std::string_view value);

/// A name found in a file, for messages: in double quotes, control characters escaped, cut where it gets long.
std::string shown(std::string_view name);

/// What a nlohmann parse error says, without its prefix and without quoting the input at length.
std::string parse_error_text(std::size_t position, std::string_view exception_text);

}  // namespace reap
