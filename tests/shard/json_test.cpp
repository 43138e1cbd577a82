#include "shard/json.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "shard/checkpoint_files.hpp"

namespace reap {
namespace {

TEST(ParseJson, KeepsValuesAndOrder) {
  const Json json =
      parse_json(R"( {"b": [1, -2, 3.5, null, true], "a": {"x": "\u00e9\n"}, "c": 18446744073709551615} )", "t");
  EXPECT_EQ(json.dump(), "{\"b\":[1,-2,3.5,null,true],\"a\":{\"x\":\"\u00e9\\n\"},\"c\":18446744073709551615}");
  EXPECT_EQ(parse_json("7", "t"), 7);
  EXPECT_EQ(parse_json("[]", "t"), Json::array());
}

TEST(ParseJson, RefusesWhatIsNotOneStrictDocument) {
  struct Case {
    std::string text;
    std::string_view word;
  };
  using namespace std::string_literals;
  const std::vector<Case> cases{
      {"", "offset 0"},
      {"{", "offset 1"},
      {"{} {}", "offset 3"},
      {"[1,]", "offset 3"},
      {"{\"a\":1,}", "offset 7"},
      {"// note\n{}", "offset 0"},
      {"{'a':1}", "offset 1"},
      {"[01]", "offset 2"},
      {"[NaN]", "offset 1"},
      {"[1e999]", "overflow"},
      {"\"\xFF\"", "UTF-8"},
      {"\"\\ud800\"", "offset"},
      {"\"a\nb\"", "control character"},
      {"{}\0{}"s, "zero byte at offset 2"},
      {"{}\0"s, "zero byte at offset 2"},
      {"\xEF\xBB\xBF{}", "byte order mark"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    expect_error(ExitCode::bad_input, {"file.json", c.word}, [&] { parse_json(c.text, "file.json"); });
  }
}

TEST(ParseJson, RefusesDuplicateKeysAtAnyDepthAndInAnySpelling) {
  for (const char* text : {R"({"a":1,"a":1})", R"({"a":1,"\u0061":2})", R"([{"x":{"b":1,"a":2,"c":3,"a":4}}])",
                           R"({"a":{},"b":[],"a":{}})"}) {
    expect_error(ExitCode::bad_input, {"file.json", "\"a\" appears twice"}, [&] { parse_json(text, "file.json"); });
  }
  EXPECT_NO_THROW(parse_json(R"({"a":{"a":[{"a":1},{"a":2}]},"A":0})", "t"));
}

TEST(ParseJson, DepthIsLimited) {
  EXPECT_NO_THROW(parse_json(std::string(128, '[') + std::string(128, ']'), "t"));
  expect_error(ExitCode::bad_input, {"t", "deeper than 128"},
               [] { parse_json(std::string(129, '[') + std::string(129, ']'), "t"); });
  expect_error(ExitCode::bad_input, {"deeper"}, [] { parse_json(std::string(10'000'000, '['), "t"); });
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  expect_error(ExitCode::bad_input, {"deeper"}, [&] { parse_json(objects, "t"); });
}

// Quadratic work on 300,000 keys would run into the test's time limit.
TEST(ParseJson, ManyKeysTakeLinearTime) {
  std::string text = "{\"k\":0";
  for (int i = 0; i < 300'000; ++i) text += fmt::format(",\"key{}\":{}", i, i);
  EXPECT_EQ(parse_json(text + "}", "t").size(), 300'001u);
  expect_error(ExitCode::bad_input, {"\"k\" appears twice"}, [&] { parse_json(text + ",\"k\":1}", "t"); });
}

TEST(ParseJson, MessagesStayShort) {
  const std::string text = "\"" + std::string(1'000'000, 'x') + "\\q\"";
  try {
    parse_json(text, "t");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_LT(std::string_view(error.what()).size(), 400u);
  }
}

TEST(WithMember, ReplacesOnlyTheValue) {
  EXPECT_EQ(with_member("{ \"a\" :\t1 ,\"b\":2}", "a", "[3]"), "{ \"a\" :\t[3] ,\"b\":2}");
  EXPECT_EQ(with_member("\n{\n \"a\": {\"b\": 1},\n \"b\": -2.5e3\n}\n", "b", "7"),
            "\n{\n \"a\": {\"b\": 1},\n \"b\": 7\n}\n");
  EXPECT_EQ(with_member(R"({"s":"}\"],\\","b":{"x":["]"]},"c":null})", "b", "0"), R"({"s":"}\"],\\","b":0,"c":null})");
  EXPECT_EQ(with_member(R"({"c":true})", "c", "false"), R"({"c":false})");
}

TEST(WithMember, LeavesNestedMembersOfTheSameNameAlone) {
  EXPECT_EQ(with_member(R"({"x":{"n":1,"y":[{"n":2}]},"n":3,"z":"\"n\":4"})", "n", "9"),
            R"({"x":{"n":1,"y":[{"n":2}]},"n":9,"z":"\"n\":4"})");
}

TEST(WithMember, FindsEscapedSpellings) {
  EXPECT_EQ(with_member(R"({"\u006eum":1})", "num", "2"), R"({"\u006eum":2})");
  EXPECT_EQ(with_member(R"({"a\"b":1})", "a\"b", "2"), R"({"a\"b":2})");
}

TEST(WithMember, AddsAMissingMemberInTheObjectsStyle) {
  EXPECT_EQ(with_member("{\n  \"a\": 1,\n  \"b\": {\n    \"c\": 2\n  }\n}\n", "c", "3"),
            "{\n  \"a\": 1,\n  \"b\": {\n    \"c\": 2\n  },\n  \"c\": 3\n}\n");
  EXPECT_EQ(with_member(R"({"a":1,"b":2})", "c\"", "3"), R"({"a":1,"b":2,"c\"":3})");
  EXPECT_EQ(with_member(R"({"a": 1, "b": 2})", "c", "3"), R"({"a": 1, "b": 2, "c": 3})");
  EXPECT_EQ(with_member("{ }", "a", "1"), "{\"a\": 1 }");
}

TEST(WithMember, RefusesBrokenTexts) {
  for (const char* text : {"[1]", "{", "{\"a\":1,\"a\":2}"}) {
    expect_error(ExitCode::bad_input, {}, [&] { with_member(text, "a", "1"); });
  }
  expect_error(ExitCode::bad_input, {"\"a\""}, [] { with_member("{}", "a", "1,\"b\":2"); });
}

TEST(Shown, EscapesAndShortens) {
  EXPECT_EQ(shown("a b"), "\"a b\"");
  EXPECT_EQ(shown("a\x1b[31m\n"), "\"a\\x1b[31m\\x0a\"");
  EXPECT_EQ(shown(std::string(1000, 'x')), "\"" + std::string(160, 'x') + "...\"");
  EXPECT_EQ(shown(std::string(159, 'x') + "\u00e9\u00e9"),
            "\"" + std::string(159, 'x') + "...\"");  // no half character
}

}  // namespace
}  // namespace reap
