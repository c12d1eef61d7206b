#include <doctest/doctest.h>

#include "comm/conformance.h"

using namespace qwenbench;

TEST_CASE("threads: every number of ranks, also more than there are cores") {
  for (const int size : {1, 2, 3, 4, 8}) comm::check_conformance(comm::make_threads, size, size > 2 ? 200 : 2000);
}

TEST_CASE("threads: two ranks over half-sums are the upper level of the tree of four") {
  std::vector<std::vector<float>> quarters;
  for (int part = 0; part < 4; ++part) quarters.push_back(comm::rank_values(part, 3, 500));
  auto four = quarters;
  auto ranks = comm::make_threads(4);
  comm::require_no_errors(comm::on_all_ranks(ranks, [&](comm::Communicator& c) { c.all_reduce(four[c.rank()]); }));

  std::vector<std::vector<float>> halves(2, std::vector<float>(500));
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 500; ++i) halves[half][i] = quarters[2 * half][i] + quarters[2 * half + 1][i];
  }
  auto two = comm::make_threads(2);
  comm::require_no_errors(comm::on_all_ranks(two, [&](comm::Communicator& c) { c.all_reduce(halves[c.rank()]); }));
  CHECK(comm::count_different_bits(halves[0], four[0]) == 0);
}

TEST_CASE("threads: ranks that disagree on a size are told so") {
  auto ranks = comm::make_threads(2);
  const auto errors = comm::on_all_ranks(ranks, [](comm::Communicator& c) {
    std::vector<float> values(static_cast<std::size_t>(10 + c.rank()));
    c.all_reduce(values);
  });
  for (const auto& error : errors) {
    REQUIRE(error);
    CHECK_THROWS_AS(std::rethrow_exception(error), std::logic_error);
  }
}
