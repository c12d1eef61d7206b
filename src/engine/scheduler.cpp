#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

namespace qwenbench::engine {

Scheduler::Scheduler(const SchedulerLimits& limits, BlockManager& blocks, PrefixCache* cache)
    : limits_(limits), blocks_(blocks), cache_(cache) {
  // Every running sequence must get its token in every step.
  limits_.max_num_seqs = std::min(limits_.max_num_seqs, limits_.max_num_batched_tokens);
}

Schedule Scheduler::schedule() {
  Schedule schedule;
  int budget = limits_.max_num_batched_tokens;
  schedule_running(schedule, budget);
  // Blocks have just run out: who would be admitted now would be sent back next.
  if (schedule.preempted == 0) schedule_waiting(schedule, budget);
  return schedule;
}

void Scheduler::schedule_running(Schedule& schedule, int& budget) {
  for (std::size_t i = 0; i < running_.size() && budget > 0; ++i) {
    Sequence* sequence = running_[i].get();
    const int count = std::min(sequence->remaining(), budget);
    while (i < running_.size() && !grow(*sequence, sequence->computed + count)) preempt_last(schedule);
    if (i == running_.size()) return;  // it was the last itself
    schedule.chunks.push_back({sequence, sequence->computed, count});
    budget -= count;
  }
}

void Scheduler::schedule_waiting(Schedule& schedule, int& budget) {
  while (!waiting_.empty() && budget > 0 && static_cast<int>(running_.size()) < limits_.max_num_seqs) {
    if (!admit(schedule, budget)) return;
  }
}

/// The head of the queue, if there is room. All its present tokens must fit into free blocks, not only the first chunk:
/// else it would be sent back half-way, again and again.
bool Scheduler::admit(Schedule& schedule, int& budget) {
  Sequence& sequence = *waiting_.front();
  const std::vector<std::int32_t> prefix = cached_prefix(sequence);
  const int cached = static_cast<int>(prefix.size()) * limits_.block_size;
  const int remaining = sequence.length() - cached;
  // Without chunking it waits for a step that has room for all of it. One that grew beyond any step before it was sent
  // back must be computed in several nevertheless.
  if (!limits_.chunked_prefill && remaining > budget && remaining <= limits_.max_num_batched_tokens) return false;
  const auto is_free = [&](std::int32_t block) { return blocks_.holders(block) == 0; };
  const int free = blocks_.num_free() - static_cast<int>(std::count_if(prefix.begin(), prefix.end(), is_free));
  if (blocks_for(sequence.length(), limits_.block_size) - static_cast<int>(prefix.size()) > free) return false;

  for (const std::int32_t block : prefix) blocks_.retain(block);
  sequence.blocks = prefix;
  sequence.cached_blocks = static_cast<int>(prefix.size());
  sequence.computed = cached;
  if (sequence.preemptions == 0) {
    schedule.admitted.push_back(sequence.id);
    if (cache_) queried_tokens_ += sequence.length();
    hit_tokens_ += cached;
    sequence.prefix_hit = cached;
  }
  const int count = std::min(remaining, budget);
  grow(sequence, cached + count);
  schedule.chunks.push_back({&sequence, cached, count});
  budget -= count;
  running_.push_back(std::move(waiting_.front()));
  waiting_.pop_front();
  return true;
}

std::vector<std::int32_t> Scheduler::cached_prefix(Sequence& sequence) const {
  if (!cache_) return {};
  extend_block_keys(sequence.keys, sequence.tokens, sequence.identities, limits_.block_size);
  return cache_->match(sequence.keys, sequence.first_wanted() / limits_.block_size);
}

/// Allocates up to `tokens`, or nothing.
bool Scheduler::grow(Sequence& sequence, int tokens) {
  const int missing = blocks_for(tokens, limits_.block_size) - static_cast<int>(sequence.blocks.size());
  if (missing > blocks_.num_free()) return false;
  for (int i = 0; i < missing; ++i) sequence.blocks.push_back(blocks_.allocate());
  return true;
}

void Scheduler::preempt_last(Schedule& schedule) {
  std::unique_ptr<Sequence> sequence = std::move(running_.back());
  running_.pop_back();
  release_blocks(*sequence);
  sequence->computed = 0;
  sequence->prefill_end = sequence->length();
  for (auto& features : sequence->features) features.reset();
  ++sequence->preemptions;
  ++preemptions_;
  ++schedule.preempted;
  waiting_.push_front(std::move(sequence));
}

/// From the last to the first: the front of a prefix is the last to be overwritten.
void Scheduler::release_blocks(Sequence& sequence) {
  for (auto block = sequence.blocks.rbegin(); block != sequence.blocks.rend(); ++block) blocks_.release(*block);
  sequence.blocks.clear();
  sequence.cached_blocks = 0;
}

void Scheduler::complete(const Chunk& chunk) {
  Sequence& sequence = *chunk.sequence;
  sequence.computed = chunk.end();
  const int full_blocks = sequence.computed / limits_.block_size;
  if (!cache_ || full_blocks == sequence.cached_blocks) return;
  extend_block_keys(sequence.keys, sequence.tokens, sequence.identities, limits_.block_size);
  for (int i = sequence.cached_blocks; i < full_blocks; ++i) cache_->insert(sequence.keys[i], sequence.blocks[i]);
  sequence.cached_blocks = full_blocks;
}

void Scheduler::finish(const Sequence& sequence) {
  const auto found =
      std::find_if(running_.begin(), running_.end(), [&](const auto& s) { return s.get() == &sequence; });
  release_blocks(**found);
  running_.erase(found);
}

void Scheduler::drop_all() {
  for (auto& sequence : running_) release_blocks(*sequence);
  running_.clear();
  waiting_.clear();
}

}  // namespace qwenbench::engine
