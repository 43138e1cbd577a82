#include "shard/json.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::size_t kMaxDepth = 128;
constexpr std::size_t kMaxQuoted = 160;

// Builds the document from parser events. nlohmann's own builder keeps the last of several equal keys without a word,
// and looks every new key up among the others, which takes minutes on the index of a large model.
class DocumentBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit DocumentBuilder(std::string_view what) : what_{what} {}
  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool key(string_t& value) override {
    key_ = std::move(value);
    return true;
  }
  bool end_object() override {
    refuse_duplicate_keys(*open_.back());
    open_.pop_back();
    return true;
  }
  bool end_array() override {
    open_.pop_back();
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    fail(ExitCode::bad_input, "{}: {}", what_, parse_error_text(position, error.what()));
  }

 private:
  bool add(Json&& value) {
    place(std::move(value));
    return true;
  }

  bool open(Json&& container) {
    if (open_.size() == kMaxDepth) fail(ExitCode::bad_input, "{}: nested deeper than {} levels", what_, kMaxDepth);
    open_.push_back(place(std::move(container)));
    return true;
  }

  // An object is a vector of pairs; appending through the vector skips the search for the key.
  Json* place(Json&& value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<Json::array_t&>();
      array.push_back(std::move(value));
      return &array.back();
    }
    auto& members = static_cast<Json::object_t::Container&>(open_.back()->get_ref<Json::object_t&>());
    members.emplace_back(std::move(key_), std::move(value));
    return &members.back().second;
  }

  void refuse_duplicate_keys(const Json& object) const {
    std::vector<std::string_view> keys;
    keys.reserve(object.size());
    for (const auto& member : object.get_ref<const Json::object_t&>()) keys.emplace_back(member.first);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) fail(ExitCode::bad_input, "{}: the key {} appears twice", what_, shown(*twice));
  }

  std::string what_;
  Json root_;
  std::vector<Json*> open_;  // the containers around the next value; only the innermost grows, so pointers stay valid
  std::string key_;
};

// Walks text that parse_json has accepted, so every token is well formed.
class Walker {
 public:
  explicit Walker(std::string_view text) : text_{text} {}
  std::size_t position() const { return at_; }
  char peek() const { return text_[at_]; }
  void step() { ++at_; }

  void skip_space() { at_ = std::min(text_.find_first_not_of(" \t\n\r", at_), text_.size()); }

  void skip_string() {
    for (++at_; text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\') ++at_;
    }
    ++at_;
  }

  void skip_value() {
    std::size_t depth = 0;
    do {
      const char c = text_[at_];
      if (c == '"') {
        skip_string();
        continue;
      }
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
      ++at_;
    } while (depth > 0 || !at_value_end());
  }

 private:
  bool at_value_end() const {
    return text_[at_ - 1] == '"' || text_[at_ - 1] == '}' || text_[at_ - 1] == ']' ||
           std::string_view(" \t\n\r,}]").find(text_[at_]) != std::string_view::npos;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// Where the parts of a top-level member lie: {, lead, "key", separator, value.
struct Member {
  std::size_t lead, key, key_end, value, value_end;
};

Member read_member(Walker& walker) {
  Member member{};
  member.lead = walker.position();
  walker.skip_space();
  member.key = walker.position();
  walker.skip_string();
  member.key_end = walker.position();
  walker.skip_space();
  walker.step();  // the colon
  walker.skip_space();
  member.value = walker.position();
  walker.skip_value();
  member.value_end = walker.position();
  return member;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view what) {
  // The parser takes a zero byte for the end of the text and skips a byte order mark; both would hide what other
  // readers see.
  const std::size_t zero = text.find('\0');
  if (zero != std::string_view::npos) fail(ExitCode::bad_input, "{}: a zero byte at offset {}", what, zero);
  if (text.starts_with("\xEF\xBB\xBF")) fail(ExitCode::bad_input, "{}: starts with a byte order mark", what);
  DocumentBuilder builder(what);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

std::string with_member(std::string_view text, std::string_view key, std::string_view value) {
  if (!parse_json(text, "JSON text").is_object()) fail(ExitCode::bad_input, "JSON text: not an object");
  parse_json(value, fmt::format("new value of {}", shown(key)));

  Walker walker(text);
  walker.skip_space();
  walker.step();
  const std::size_t inside = walker.position();
  walker.skip_space();
  if (walker.peek() == '}') {
    return fmt::format("{}{}: {}{}", text.substr(0, inside), Json(key).dump(), value, text.substr(inside));
  }
  walker = Walker(text);
  walker.skip_space();
  Member member{};
  do {
    walker.step();
    member = read_member(walker);
    const std::string_view name = text.substr(member.key, member.key_end - member.key);
    if (parse_json(name, "key").get_ref<const std::string&>() == key) {
      return fmt::format("{}{}{}", text.substr(0, member.value), value, text.substr(member.value_end));
    }
    walker.skip_space();
  } while (walker.peek() == ',');
  return fmt::format("{},{}{}{}{}{}", text.substr(0, member.value_end),
                     text.substr(member.lead, member.key - member.lead), Json(key).dump(),
                     text.substr(member.key_end, member.value - member.key_end), value, text.substr(member.value_end));
}

std::string shown(std::string_view name) {
  std::size_t length = name.size();
  if (length > kMaxQuoted) {
    length = kMaxQuoted;
    while (length > 0 && (static_cast<unsigned char>(name[length]) & 0xC0) == 0x80)
      --length;  // not inside a UTF-8 character
  }
  std::string text = "\"";
  for (const char c : name.substr(0, length)) {
    const auto byte = static_cast<unsigned char>(c);
    text += byte < 0x20 || byte == 0x7F ? fmt::format("\\x{:02x}", byte) : std::string(1, c);
  }
  return text + (length < name.size() ? "...\"" : "\"");
}

std::string parse_error_text(std::size_t position, std::string_view exception_text) {
  // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ...; last read: '...'"
  std::string_view reason = exception_text.substr(std::min(exception_text.find("] ") + 2, exception_text.size()));
  if (reason.starts_with("parse error")) reason.remove_prefix(std::min(reason.find(": ") + 2, reason.size()));
  reason = reason.substr(0, reason.find("; last read"));
  return fmt::format("not valid JSON at offset {}: {}", position - std::min<std::size_t>(position, 1),
                     reason.substr(0, kMaxQuoted));
}

}  // namespace reap
