// Which tokens of which requests the next step computes. Pure policy over bookkeeping: no backend, no clock.
//
// As in vLLM's V1 scheduler: running sequences come first, in the order of their admission, so that decodes are served
// before prompts; what is left of max_num_batched_tokens goes to a prompt under way, then to the queue, first come
// first served. Where blocks run out, the sequence admitted last is sent back to the head of the queue and computed
// anew.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "engine/block_manager.h"
#include "engine/prefix_cache.h"
#include "engine/sequence.h"

namespace qwenbench::engine {

struct SchedulerLimits {
  int max_num_seqs;            // running at a time
  int max_num_batched_tokens;  // computed in one step
  bool chunked_prefill;
  int block_size;
};

/// Tokens [first, first + count) of a sequence; its block table is large enough for them.
struct Chunk {
  Sequence* sequence;
  int first;
  int count;

  int end() const { return first + count; }
  bool decode() const { return first >= sequence->prefill_end; }
};

struct Schedule {
  std::vector<Chunk> chunks;
  std::vector<RequestId> admitted;  // for the first time
  int preempted = 0;
};

class Scheduler {
 public:
  /// `cache` may be null: no prefix caching. Both must outlive the scheduler.
  Scheduler(const SchedulerLimits& limits, BlockManager& blocks, PrefixCache* cache);

  void add(std::unique_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

  /// The next step; empty only where idle.
  Schedule schedule();

  /// The chunk was executed: its tokens are in the cache, and the blocks it filled can be shared.
  void complete(const Chunk& chunk);

  /// Drops a running sequence and releases its blocks.
  void finish(const Sequence& sequence);
  void drop_all();

  bool idle() const { return running_.empty() && waiting_.empty(); }
  const std::vector<std::unique_ptr<Sequence>>& running() const { return running_; }
  const std::deque<std::unique_ptr<Sequence>>& waiting() const { return waiting_; }

  std::int64_t preemptions() const { return preemptions_; }
  std::int64_t queried_tokens() const { return queried_tokens_; }  // of sequences admitted for the first time
  std::int64_t hit_tokens() const { return hit_tokens_; }

 private:
  void schedule_running(Schedule& schedule, int& budget);
  void schedule_waiting(Schedule& schedule, int& budget);
  bool admit(Schedule& schedule, int& budget);
  std::vector<std::int32_t> cached_prefix(Sequence& sequence) const;
  bool grow(Sequence& sequence, int tokens);
  void preempt_last(Schedule& schedule);
  void release_blocks(Sequence& sequence);

  SchedulerLimits limits_;
  BlockManager& blocks_;
  PrefixCache* cache_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in the order of admission
  std::int64_t preemptions_ = 0, queried_tokens_ = 0, hit_tokens_ = 0;
};

}  // namespace qwenbench::engine
