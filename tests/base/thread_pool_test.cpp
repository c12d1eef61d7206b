#include "base/thread_pool.h"

#include <doctest/doctest.h>

#include <numeric>
#include <stdexcept>

using namespace qwenbench;

TEST_CASE("thread pool: every index once, whatever the sizes") {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<int> hits(static_cast<std::size_t>(count), 0);
      pool.parallel_for(count, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
      });
      CHECK(std::accumulate(hits.begin(), hits.end(), 0) == count);
      for (const int hit : hits) CHECK(hit == 1);
    }
  }
}

TEST_CASE("thread pool: an exception reaches the caller and the pool lives on") {
  ThreadPool pool(3);
  for (int failing = 0; failing < 3; ++failing) {
    CHECK_THROWS_AS(pool.run([&](int index) {
      if (index == failing) throw std::runtime_error("rank failed");
    }),
                    std::runtime_error);
  }
  std::atomic<int> sum{0};
  pool.run([&](int index) { sum += index; });
  CHECK(sum == 3);
}
