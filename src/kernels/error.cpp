#include "kernels/error.hpp"

#include <utility>
#include <vector>

namespace reap {
namespace {

thread_local std::vector<std::string> scopes;

std::string located(const std::string& message) {
  const std::string path = scope_path();
  return path.empty() ? message : path + ": " + message;
}

}  // namespace

Error::Error(ExitCode code, const std::string& message) : std::runtime_error(located(message)), code_{code} {}

Scope::Scope(std::string name) { scopes.push_back(std::move(name)); }

Scope::~Scope() { scopes.pop_back(); }

std::string scope_path() {
  std::string path;
  for (const std::string& scope : scopes) path += (path.empty() ? "" : " > ") + scope;
  return path;
}

}  // namespace reap
