#include "kernels/error.hpp"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "kernels/check.hpp"

namespace reap {
namespace {

template <class Action>
Error caught(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  throw std::logic_error("nothing was thrown");
}

TEST(Error, WithoutScopesIsTheMessageAlone) {
  const Error error = caught([] { fail(ExitCode::bad_input, "{} has {} tensors", "a.safetensors", 3); });
  EXPECT_STREQ(error.what(), "a.safetensors has 3 tensors");
  EXPECT_EQ(error.code(), ExitCode::bad_input);
}

TEST(Error, NamesTheOpenScopesFromTheOutside) {
  const Scope rank("rank 3");
  const Scope layer("layer 17");
  EXPECT_STREQ(caught([] { fail(ExitCode::io, "disk full"); }).what(), "rank 3 > layer 17: disk full");
}

TEST(Error, ScopesCloseWhenAnErrorPassesThrough) {
  EXPECT_STREQ(caught([] {
                 const Scope scope("layer 1");
                 fail(ExitCode::io, "first");
               }).what(),
               "layer 1: first");
  EXPECT_EQ(scope_path(), "");
}

TEST(Error, ScopesBelongToTheirThread) {
  const Scope scope("rank 0");
  std::string elsewhere = "not run";
  std::thread([&] { elsewhere = scope_path(); }).join();
  EXPECT_EQ(elsewhere, "");
  EXPECT_EQ(scope_path(), "rank 0");
}

TEST(Error, SharedErrorKeepsTheScopesItCameWith) {
  const Scope scope("rank 1");
  EXPECT_STREQ(SharedError(ExitCode::peer, "rank 0 > layer 2: lost").what(), "rank 0 > layer 2: lost");
}

TEST(Check, FailureIsABugWithItsPlace) {
  const Error error = caught([] { REAP_CHECK(1 + 1 == 3, "sum is {}", 2); });
  EXPECT_EQ(error.code(), ExitCode::bug);
  EXPECT_NE(std::string(error.what()).find("sum is 2 ("), std::string::npos) << error.what();
  EXPECT_NE(std::string(error.what()).find("error_test.cpp:"), std::string::npos) << error.what();
}

TEST(Check, HoldingConditionDoesNotFormatItsMessage) {
  int formatted = 0;
  REAP_CHECK(true, "{}", ++formatted);
  EXPECT_EQ(formatted, 0);
}

}  // namespace
}  // namespace reap
