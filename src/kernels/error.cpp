#include "kernels/error.hpp"

#include <utility>
#include <vector>

namespace reap {
namespace {

thread_local std::vector<std::string> scopes;
std::string (*borrowed_path)() = nullptr;  // set once, when a module is opened

std::string located(const std::string& message) {
  const std::string path = scope_path();
  return path.empty() ? message : path + ": " + message;
}

}  // namespace

Error::Error(ExitCode code, const std::string& message) : std::runtime_error(located(message)), code_{code} {}

Scope::Scope(std::string name) { scopes.push_back(std::move(name)); }

Scope::~Scope() { scopes.pop_back(); }

std::string scope_path() {
  if (borrowed_path != nullptr) return borrowed_path();
  std::string path;
  for (const std::string& scope : scopes) path += (path.empty() ? "" : " > ") + scope;
  return path;
}

void borrow_scopes(std::string (*path)()) { borrowed_path = path; }

}  // namespace reap
