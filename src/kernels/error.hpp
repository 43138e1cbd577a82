#pragma once

#include <stdexcept>
#include <string>

namespace reap {

/// What the program exits with (docs/running.md lists what each one means to a user).
enum class ExitCode : int {
  ok = 0,
  usage = 2,      // the command line
  bad_input = 3,  // a file that is not what it should be
  io = 4,         // reading or writing failed, disk full
  numerics = 5,   // a value that is not finite or out of range
  peer = 6,       // another rank died or cannot be reached
  bug = 70,       // a broken invariant of our own
  stopped = 75,   // stopped on request, state saved
};

/// The one exception of the project. what() starts with the path of open scopes: "rank 3 > layer 17: ...".
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message);
  ExitCode code() const { return code_; }

 protected:
  struct AsIs {};
  Error(ExitCode code, const std::string& message, AsIs) : std::runtime_error(message), code_{code} {}

 private:
  ExitCode code_;
};

/// An error that every rank throws together (Comm::all_try): reported once, and the job ends in order, without an abort.
/// `message` is taken as it is, with the scopes of the rank it came from.
class SharedError : public Error {
 public:
  SharedError(ExitCode code, const std::string& message) : Error(code, message, AsIs{}) {}
};

/// Names the place (rank, layer, file) that errors thrown below it come from. Per thread; strictly nested.
class Scope {
 public:
  explicit Scope(std::string name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
};

/// The open scopes of this thread, "rank 3 > layer 17", or "" when there are none.
std::string scope_path();

/// For a module with its own copy of this code: from here on scope_path() there is what `path` returns, so that errors
/// thrown in the module name the scopes of the program.
void borrow_scopes(std::string (*path)());

}  // namespace reap
