#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/error.hpp"

namespace reap {

/// Runs `work`, which must throw an Error of that code whose text holds all of `words`.
template <class Work>
void expect_error(ExitCode code, const std::vector<std::string>& words, Work&& work) {
  try {
    work();
    ADD_FAILURE() << "no error, expected one about \"" << (words.empty() ? "" : words[0]) << '"';
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
    for (const std::string& word : words) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
          << '"' << word << "\" is not in: " << error.what();
    }
  }
}

}  // namespace reap
