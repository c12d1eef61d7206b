// Runs one of the built executables, as a user would.
#pragma once

#include <string>

namespace qwenbench::test {

struct ProcessResult {
  int code = -1;  // exit code; 128 + signal where it was killed
  std::string out, err;
};

/// `arguments` is a shell text: "qwenbench run --profile x". The executables of this build come first in PATH.
ProcessResult run_process(const std::string& arguments);

}  // namespace qwenbench::test
