// One suite for every communicator: give it a factory, and it says whether ranks agree, bit for bit, with the tree.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/communicator.h"

namespace qwenbench::comm {

using Ranks = std::vector<std::unique_ptr<Communicator>>;
using Factory = std::function<Ranks(int size)>;

/// Runs fn(communicator) on one thread a rank; an exception becomes errors[rank].
inline std::vector<std::exception_ptr> on_all_ranks(Ranks& ranks, const std::function<void(Communicator&)>& fn) {
  std::vector<std::exception_ptr> errors(ranks.size());
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    threads.emplace_back([&, rank] {
      try {
        fn(*ranks[rank]);
      } catch (...) {
        errors[rank] = std::current_exception();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return errors;
}

inline void require_no_errors(const std::vector<std::exception_ptr>& errors) {
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

/// Values whose sum depends on the order of addition.
inline std::vector<float> rank_values(int rank, int round, std::size_t count) {
  std::mt19937 random(static_cast<unsigned>(1000 * round + rank));
  std::uniform_real_distribution<float> mantissa(-1.0f, 1.0f);
  std::vector<float> values(count);
  for (auto& value : values) value = std::ldexp(mantissa(random), static_cast<int>(random() % 24));
  return values;
}

/// The definition: the halves of a rank range are summed apart, then added.
inline float tree_sum(const std::vector<std::vector<float>>& values, int begin, int end, std::size_t i) {
  if (end - begin == 1) return values[begin][i];
  const int middle = begin + (end - begin) / 2;
  return tree_sum(values, begin, middle, i) + tree_sum(values, middle, end, i);
}

inline int count_different_bits(const std::vector<float>& a, const std::vector<float>& b) {
  int different = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    different += std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]);
  }
  return different;
}

inline void check_all_reduce(const Factory& make, int size) {
  Ranks ranks = make(size);
  int round = 0;
  for (const std::size_t count : {0, 1, 2, 255, 256, 257, 1024, 5000, 70001}) {
    std::vector<std::vector<float>> values;
    for (int rank = 0; rank < size; ++rank) values.push_back(rank_values(rank, round, count));
    std::vector<float> expected(count);
    for (std::size_t i = 0; i < count; ++i) expected[i] = tree_sum(values, 0, size, i);
    require_no_errors(on_all_ranks(ranks, [&](Communicator& comm) { comm.all_reduce(values[comm.rank()]); }));
    for (const auto& result : values) CHECK(count_different_bits(result, expected) == 0);
    ++round;
  }
}

inline void check_all_gather(const Factory& make, int size) {
  Ranks ranks = make(size);
  for (const std::size_t count : {0, 1, 3, 1000}) {
    std::vector<float> expected;
    for (int rank = 0; rank < size; ++rank) {
      const auto values = rank_values(rank, 7, count);
      expected.insert(expected.end(), values.begin(), values.end());
    }
    std::vector<std::vector<float>> results(size, std::vector<float>(count * size));
    require_no_errors(on_all_ranks(ranks, [&](Communicator& comm) {
      std::vector<float> mine = rank_values(comm.rank(), 7, count);
      comm.all_gather(mine, results[comm.rank()]);
      mine.assign(count, -1.0f);  // the call has returned: nobody may read it any more
    }));
    for (const auto& result : results) CHECK(count_different_bits(result, expected) == 0);
  }
}

/// Many small calls one after another, as in a decode step: no rank may run ahead into another's buffer.
inline void check_many_calls(const Factory& make, int size, int calls) {
  Ranks ranks = make(size);
  std::vector<int> wrong(size, 0);
  require_no_errors(on_all_ranks(ranks, [&](Communicator& comm) {
    std::vector<float> values(300), gathered(static_cast<std::size_t>(size));
    for (int call = 0; call < calls; ++call) {
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(comm.rank() + call % 100);
      comm.all_reduce(values);
      const float expected = static_cast<float>(size * (call % 100) + size * (size - 1) / 2);
      for (const float value : values) wrong[comm.rank()] += value != expected;
      const float mine = static_cast<float>(comm.rank() * 1000 + call % 1000);
      comm.all_gather({&mine, 1}, gathered);
      for (int rank = 0; rank < size; ++rank) {
        wrong[comm.rank()] += gathered[rank] != static_cast<float>(rank * 1000 + call % 1000);
      }
    }
  }));
  for (const int count : wrong) CHECK(count == 0);
}

inline void check_barrier(const Factory& make, int size) {
  Ranks ranks = make(size);
  std::atomic<int> arrived{0};
  std::atomic<int> early{0};
  require_no_errors(on_all_ranks(ranks, [&](Communicator& comm) {
    for (int round = 1; round <= 50; ++round) {
      arrived.fetch_add(1);
      comm.barrier();
      if (arrived.load() < round * size) early.fetch_add(1);
      comm.barrier();
    }
  }));
  CHECK(early.load() == 0);
}

/// The last rank fails in the middle; all others must come back with a DeviceError, then and later.
inline void check_abort(const Factory& make, int size) {
  Ranks ranks = make(size);
  const auto errors = on_all_ranks(ranks, [&](Communicator& comm) {
    std::vector<float> values(100, 1.0f);
    for (int call = 0; call < 10; ++call) {
      if (comm.rank() == size - 1 && call == 5) {
        comm.abort();
        return;
      }
      comm.all_reduce(values);
    }
  });
  for (int rank = 0; rank + 1 < size; ++rank) {
    REQUIRE(errors[rank]);
    CHECK_THROWS_AS(std::rethrow_exception(errors[rank]), DeviceError);
    CHECK_THROWS_AS(ranks[rank]->barrier(), DeviceError);
  }
  CHECK_THROWS_AS(ranks[size - 1]->barrier(), DeviceError);
}

/// A rank whose thread ends, taking its communicator with it, counts as failed.
inline void check_lost_rank(const Factory& make, int size) {
  Ranks ranks = make(size);
  const auto errors = on_all_ranks(ranks, [&](Communicator& comm) {
    comm.barrier();
    if (comm.rank() == 0) {
      ranks[0].reset();
      return;
    }
    std::vector<float> values(10);
    comm.all_reduce(values);
  });
  CHECK(!errors[0]);
  for (int rank = 1; rank < size; ++rank) {
    REQUIRE(errors[rank]);
    CHECK_THROWS_AS(std::rethrow_exception(errors[rank]), DeviceError);
  }
}

inline void check_conformance(const Factory& make, int size, int calls = 2000) {
  CAPTURE(size);
  Ranks ranks = make(size);
  REQUIRE(static_cast<int>(ranks.size()) == size);
  for (int rank = 0; rank < size; ++rank) {
    CHECK(ranks[rank]->rank() == rank);
    CHECK(ranks[rank]->size() == size);
  }
  check_all_reduce(make, size);
  check_all_gather(make, size);
  check_many_calls(make, size, calls);
  check_barrier(make, size);
  check_abort(make, size);
  if (size > 1) check_lost_rank(make, size);
}

}  // namespace qwenbench::comm
