#include <doctest/doctest.h>

#include <new>
#include <sstream>

#include "base/error.h"
#include "command_main.h"
#include "dispatch.h"

using namespace qwenbench;
using namespace qwenbench::tools;

namespace {

struct Outcome {
  int code;
  std::string out, err;
};

Outcome guard(const Command& command) {
  std::ostringstream out, err;
  const int code = guarded(command, {}, out, err);
  return {code, out.str(), err.str()};
}

template <class Exception>
Outcome guard_throwing(const Exception& exception) {
  return guard([&](const auto&, std::ostream&, std::ostream&) -> int { throw exception; });
}

}  // namespace

TEST_CASE("shared main: every kind of failure is one line and its exit code") {
  const Outcome input = guard_throwing(InputError("a: bad\nvalue"));
  CHECK(input.code == 2);
  CHECK(input.err == "qwenbench: error: a: bad value\n");
  CHECK(guard_throwing(DeviceError("gone")).code == 5);
  CHECK(guard_throwing(Error(ExitCode::kNotComparable, "x")).code == 4);
  CHECK(guard_throwing(std::bad_alloc()).code == 5);
  const Outcome internal = guard_throwing(std::logic_error("oops"));
  CHECK(internal.code == 2);
  CHECK(internal.err == "qwenbench: error: internal error: oops (please report it)\n");
}

TEST_CASE("shared main: a command's own exit code stands; output that cannot be written is an error") {
  CHECK(guard([](const auto&, std::ostream&, std::ostream&) { return 130; }).code == 130);
  const Outcome closed = guard([](const auto&, std::ostream& out, std::ostream&) {
    out.setstate(std::ios::badbit);
    return 0;
  });
  CHECK(closed.code == 2);
}

TEST_CASE("dispatcher: a folder without subcommands offers none") {
  std::ostringstream out;
  CHECK(find_subcommands("fixtures/none").empty());
  CHECK_THROWS_AS(dispatch("fixtures/none", {"run"}, out), InputError);
}
