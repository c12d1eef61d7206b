#include "engine/scheduler.h"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>

#include "engine/random_requests.h"

using namespace qwenbench;
using namespace qwenbench::engine;

namespace {

/// A scheduler with something that pretends to execute: every step appends a token where the model would.
struct Bench {
  Bench(const SchedulerLimits& its_limits, int num_blocks, bool caching)
      : limits(its_limits),
        cache(num_blocks),
        blocks(num_blocks, caching ? &cache : nullptr),
        scheduler(limits, blocks, caching ? &cache : nullptr),
        contents(num_blocks) {}

  RequestId add(std::vector<std::int32_t> prompt, int max_tokens) {
    workload::Request request;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    return add(std::move(request));
  }

  RequestId add(workload::Request request) {
    const RequestLimits accepted{.max_model_len = 200,
                                 .max_num_batched_tokens = limits.max_num_batched_tokens,
                                 .chunked_prefill = limits.chunked_prefill,
                                 .max_images = 9,
                                 .num_blocks = blocks.num_blocks(),
                                 .block_size = limits.block_size};
    scheduler.add(make_sequence(next_id, std::move(request), fake::config(), accepted));
    return next_id++;
  }

  Schedule step() {
    Schedule schedule = scheduler.schedule();
    check_limits(schedule);
    check_blocks();
    for (const Chunk& chunk : schedule.chunks) check_prefix(chunk);
    for (const Chunk& chunk : schedule.chunks) {
      write(chunk);
      Sequence& sequence = *chunk.sequence;
      const int wanted = sequence.first_wanted();
      scheduler.complete(chunk);
      if (chunk.end() <= wanted) continue;
      if (sequence.forced())
        sequence.next_score += chunk.end() - wanted;
      else
        sequence.tokens.push_back(static_cast<std::int32_t>(fake::mix(sequence.id + sequence.length()) % 38));
      const bool done =
          sequence.forced() ? sequence.remaining() == 0 : sequence.generated() == sequence.request.max_tokens;
      if (!done) continue;
      finished.insert(sequence.id);
      scheduler.finish(sequence);
    }
    check_blocks();
    return schedule;
  }

  void check_limits(const Schedule& schedule) const {
    int tokens = 0;
    std::set<const Sequence*> seen;
    for (const Chunk& chunk : schedule.chunks) {
      REQUIRE(chunk.count > 0);
      REQUIRE(seen.insert(chunk.sequence).second);
      tokens += chunk.count;
    }
    REQUIRE(tokens <= limits.max_num_batched_tokens);
    REQUIRE(static_cast<int>(scheduler.running().size()) <= limits.max_num_seqs);
    REQUIRE((schedule.chunks.empty() == scheduler.idle()));
  }

  /// Every block is free, or held exactly as often as it stands in a table.
  void check_blocks() const {
    std::map<std::int32_t, int> held;
    for (const auto& sequence : scheduler.running()) {
      std::set<std::int32_t> own;
      for (const auto block : sequence->blocks) {
        REQUIRE(own.insert(block).second);
        ++held[block];
      }
    }
    for (const auto& sequence : scheduler.waiting()) REQUIRE(sequence->blocks.empty());
    REQUIRE(blocks.num_free() == blocks.num_blocks() - static_cast<int>(held.size()));
    for (int block = 0; block < blocks.num_blocks(); ++block) {
      const auto found = held.find(block);
      REQUIRE(blocks.holders(block) == (found == held.end() ? 0 : found->second));
    }
  }

  /// What a token is, with the picture that it shows and all that came before.
  static std::vector<std::string> history(const Sequence& sequence, int tokens) {
    std::vector<std::string> history;
    for (int i = 0; i < tokens; ++i) history.push_back(std::to_string(sequence.tokens[i]));
    for (const auto& picture : sequence.identities) {
      for (int i = picture.first; i < std::min(tokens, picture.first + picture.count); ++i) {
        history[i] += picture.sha256 + std::to_string(i - picture.first);
      }
    }
    return history;
  }

  /// Tokens that are said to be computed stand in their blocks, also where another sequence wrote them.
  void check_prefix(const Chunk& chunk) const {
    const Sequence& sequence = *chunk.sequence;
    REQUIRE(static_cast<int>(sequence.blocks.size()) == blocks_for(chunk.end(), limits.block_size));
    REQUIRE(chunk.first <= sequence.first_wanted());
    const auto mine = history(sequence, chunk.first);
    for (int i = 0; i < chunk.first; i += limits.block_size) {
      const auto& stored = contents[sequence.blocks[i / limits.block_size]];
      const int end = std::min(chunk.first, i + limits.block_size);
      REQUIRE(std::vector<std::string>(stored.begin(), stored.begin() + std::min<std::size_t>(end, stored.size())) ==
              std::vector<std::string>(mine.begin(), mine.begin() + end));
    }
  }

  void write(const Chunk& chunk) {
    for (int i = chunk.first; i < chunk.end(); ++i) {
      const auto block = chunk.sequence->blocks[i / limits.block_size];
      REQUIRE(blocks.holders(block) == 1);  // nobody else reads what is being written
      contents[block] = history(*chunk.sequence, i + 1);
    }
  }

  SchedulerLimits limits;
  PrefixCache cache;
  BlockManager blocks;
  Scheduler scheduler;
  std::vector<std::vector<std::string>> contents;  // by block: the whole history up to its last token
  std::set<RequestId> finished;
  RequestId next_id = 0;
};

std::vector<std::int32_t> tokens(int count, std::int32_t first = 0) {
  std::vector<std::int32_t> all(count);
  for (int i = 0; i < count; ++i) all[i] = (first + i) % 38;
  return all;
}

std::vector<int> counts(const Schedule& schedule) {
  std::vector<int> all;
  for (const Chunk& chunk : schedule.chunks) all.push_back(chunk.count);
  return all;
}

}  // namespace

TEST_CASE("chunked prefill: decodes first, then the prompt under way, then the queue in order") {
  Bench bench({4, 10, true, 4}, 100, false);
  bench.add(tokens(3), 20);
  bench.add(tokens(25), 20);
  bench.add(tokens(5), 20);
  CHECK(counts(bench.step()) == std::vector<int>{3, 7});
  CHECK(counts(bench.step()) == std::vector<int>{1, 9});
  CHECK(counts(bench.step()) == std::vector<int>{1, 9});
  const Schedule schedule = bench.step();
  CHECK(counts(schedule) == std::vector<int>{1, 1, 5});
  CHECK(schedule.admitted == std::vector<RequestId>{2});
  CHECK(schedule.chunks[0].sequence->id == 0);
}

TEST_CASE("without chunked prefill a prompt waits for a step that has room for all of it") {
  Bench bench({4, 10, false, 4}, 100, false);
  bench.add(tokens(6), 20);
  bench.add(tokens(6), 20);
  bench.add(tokens(2), 20);
  CHECK(counts(bench.step()) == std::vector<int>{6});  // first come, first served: the third does not overtake
  CHECK(counts(bench.step()) == std::vector<int>{1, 6, 2});
  CHECK_THROWS_AS(bench.add(tokens(11), 1), InputError);
}

TEST_CASE("max_num_seqs holds the queue back") {
  Bench bench({2, 100, true, 4}, 100, false);
  for (int i = 0; i < 3; ++i) bench.add(tokens(4), 2);
  CHECK(counts(bench.step()) == std::vector<int>{4, 4});
  CHECK(counts(bench.step()) == std::vector<int>{1, 1});
  CHECK(counts(bench.step()) == std::vector<int>{4});
}

TEST_CASE("the sequence admitted last is sent back when blocks run out, and goes on later") {
  Bench bench({4, 100, true, 4}, 4, false);
  bench.add(tokens(8), 8);  // two blocks, later four
  bench.add(tokens(8), 4);
  CHECK(bench.step().preempted == 0);
  const Schedule schedule = bench.step();
  CHECK(schedule.preempted == 1);
  CHECK(counts(schedule) == std::vector<int>{1});
  REQUIRE(bench.scheduler.waiting().size() == 1);
  CHECK(bench.scheduler.waiting().front()->id == 1);
  CHECK(bench.scheduler.waiting().front()->length() == 9);  // its token is kept
  int steps = 0;
  while (!bench.scheduler.idle() && ++steps < 100) bench.step();
  CHECK(bench.finished.size() == 2);
  CHECK(bench.scheduler.preemptions() == 1);
}

TEST_CASE("prefix cache: what was computed is found again, but never the last token of a prompt") {
  Bench bench({4, 100, true, 4}, 100, true);
  bench.add(tokens(12), 1);
  bench.step();
  CHECK(bench.scheduler.hit_tokens() == 0);
  bench.add(tokens(12), 1);
  CHECK(counts(bench.step()) == std::vector<int>{4});  // 12 are cached, the last block is computed anew
  bench.add(tokens(13), 1);
  CHECK(counts(bench.step()) == std::vector<int>{1});
  CHECK(bench.scheduler.hit_tokens() == 8 + 12);
  CHECK(bench.scheduler.queried_tokens() == 12 + 12 + 13);
}

TEST_CASE("prefix cache: positions to be scored are computed") {
  Bench bench({4, 100, true, 4}, 100, true);
  workload::Request request;
  request.prompt = tokens(6);
  request.forced = tokens(15, 6);
  request.score_from = 0;
  bench.add(request);
  CHECK(counts(bench.step()) == std::vector<int>{20});  // the last forced token predicts nothing
  bench.add(request);
  CHECK(counts(bench.step()) == std::vector<int>{16});  // the first scored position is token 5
  request.score_from = 4;
  bench.add(request);
  CHECK(counts(bench.step()) == std::vector<int>{12});  // token 9
}

TEST_CASE("10,000 random steps: nothing leaks, nothing is shared wrongly, everything finishes") {
  int steps = 0, preemptions = 0;
  std::int64_t hits = 0;
  for (unsigned seed = 0; steps < 10000; ++seed) {
    CAPTURE(seed);
    fake::RandomRequests random(seed);
    const int block_size = random.between(1, 6);
    const SchedulerLimits limits{random.between(1, 8), random.between(6, 40), !random.one_in(4), block_size};
    const int num_blocks = blocks_for(random.between(42, 75), block_size);
    Bench bench(limits, num_blocks, !random.one_in(3));
    std::size_t added = 0;
    for (int step = 0; step < 150 || !bench.scheduler.idle(); ++step) {
      REQUIRE(step < 5000);
      if (step < 150 && random.one_in(3)) {
        const int longest = limits.chunked_prefill ? 30 : limits.max_num_batched_tokens;
        auto request = random.next(longest, 10);
        if (!limits.chunked_prefill && !request.forced.empty()) continue;
        bench.add(std::move(request));
        ++added;
      }
      bench.step();
      ++steps;
    }
    CHECK(bench.finished.size() == added);
    CHECK(bench.blocks.num_free() == num_blocks);
    preemptions += static_cast<int>(bench.scheduler.preemptions());
    hits += bench.scheduler.hit_tokens();
  }
  CHECK(preemptions > 100);  // the test has seen what it is about
  CHECK(hits > 1000);
}
