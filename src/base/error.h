// Errors that a user sees, and the exit codes of every command.
#pragma once

#include <stdexcept>
#include <string>

namespace qwenbench {

enum class ExitCode : int {
  kOk = 0,            // done, nothing regressed
  kRegression = 1,    // regression or failed slo
  kInput = 2,         // bad usage or unreadable input
  kInconclusive = 3,  // only with --strict
  kNotComparable = 4,
  kDevice = 5,  // a device or memory failure
  kCancelled = 130,
};

/// What a command stops with. what() is one line: what happened, where, and what to do. Only the shared main() of
/// tools/ catches it.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// Bad usage, or input that cannot be read (exit 2).
class InputError : public Error {
 public:
  explicit InputError(const std::string& message) : Error(ExitCode::kInput, message) {}
};

/// A device or memory failure (exit 5).
class DeviceError : public Error {
 public:
  explicit DeviceError(const std::string& message) : Error(ExitCode::kDevice, message) {}
};

/// One-line form of a text that came from outside: control characters and line breaks become spaces, long text is cut.
std::string one_line(std::string text, std::size_t max_length = 300);

/// The known name nearest to `name` by edit distance, or "" where none is near enough to be meant.
template <class Names>
std::string nearest_name(const std::string& name, const Names& known);

std::size_t edit_distance(const std::string& a, const std::string& b);

template <class Names>
std::string nearest_name(const std::string& name, const Names& known) {
  std::string best;
  std::size_t best_distance = name.size() / 2 + 2;
  for (const auto& candidate : known) {
    const std::size_t distance = edit_distance(name, std::string(candidate));
    if (distance < best_distance) {
      best = std::string(candidate);
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace qwenbench
