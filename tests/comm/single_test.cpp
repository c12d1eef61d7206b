#include <doctest/doctest.h>

#include "comm/conformance.h"

using namespace qwenbench;

TEST_CASE("single: one rank") {
  comm::check_conformance(
      [](int) {
        comm::Ranks ranks;
        ranks.push_back(comm::make_single());
        return ranks;
      },
      1);
}
