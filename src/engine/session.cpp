#include "engine/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <new>
#include <optional>
#include <utility>

#include "base/error.h"
#include "engine/block_manager.h"
#include "engine/encoder_cache.h"
#include "engine/memory_plan.h"
#include "engine/prefix_cache.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/step_batch.h"

namespace qwenbench::engine {
namespace {

int resolve_max_model_len(const profile::EngineOptions& engine, const model::ModelConfig& config) {
  const int longest = config.text.max_position_embeddings;
  if (engine.max_model_len > longest) {
    throw InputError(fmt::format("engine.max_model_len is {}, but the model has positions for {} tokens; lower it",
                                 engine.max_model_len, longest));
  }
  return engine.max_model_len > 0 ? engine.max_model_len : longest;
}

/// A GPU's cache takes what the memory plan leaves; a CPU's what the options say.
int resolve_num_blocks(const SessionOptions& options, const Model& model) {
  if (options.num_blocks > 0) return options.num_blocks;
  const auto& engine = options.engine;
  if (model.memory().is_gpu) {
    const KvCapacity capacity = kv_capacity(model.config(), model.memory(), options.kv_cache_dtype);
    require_fits(model.memory(), capacity);
    return static_cast<int>(std::min<std::int64_t>(capacity.num_blocks, std::numeric_limits<std::int32_t>::max() / 2));
  }
  const std::size_t block =
      backend::kv_block_bytes(model.config(), model.ranks(), options.kv_cache_dtype, engine.block_size);
  const double blocks = engine.cpu_kv_cache_gib * 0x1p30 / static_cast<double>(block);
  if (!(blocks >= 1)) {
    throw InputError(fmt::format("engine.cpu_kv_cache_gib = {} has no room for one KV block of {} bytes; raise it",
                                 engine.cpu_kv_cache_gib, block));
  }
  return static_cast<int>(std::min(blocks, static_cast<double>(std::numeric_limits<std::int32_t>::max() / 2)));
}

RequestLimits resolve_limits(const SessionOptions& options, const Model& model) {
  const auto& engine = options.engine;
  if (engine.block_size < 1 || engine.max_num_seqs < 1 || engine.max_num_batched_tokens < 1) {
    throw InputError("engine.block_size, max_num_seqs and max_num_batched_tokens must be at least 1");
  }
  const auto images = engine.limit_mm_per_prompt.find("image");
  return {.max_model_len = resolve_max_model_len(engine, model.config()),
          .max_num_batched_tokens = engine.max_num_batched_tokens,
          .chunked_prefill = engine.enable_chunked_prefill,
          .max_images = images == engine.limit_mm_per_prompt.end() ? std::numeric_limits<int>::max() : images->second,
          .num_blocks = resolve_num_blocks(options, model),
          .block_size = engine.block_size};
}

SchedulerLimits scheduler_limits(const profile::EngineOptions& engine) {
  return {engine.max_num_seqs, engine.max_num_batched_tokens, engine.enable_chunked_prefill, engine.block_size};
}

constexpr std::int32_t kNotSampled = -2;

bool contains(const std::vector<std::int32_t>& ids, std::int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

struct Session::State {
  State(std::shared_ptr<Model> its_model, const SessionOptions& its_options);

  void execute();
  void complete(const Schedule& schedule);
  void emit_tokens();
  void emit_scores();
  void finish_sequences();
  std::int32_t sampled_token(std::size_t row, const Sequence& sequence) const;
  FinishReason finish_reason(const Sequence& sequence, std::int32_t token) const;

  std::shared_ptr<Model> model;
  SessionOptions options;
  RequestLimits limits;
  std::optional<PrefixCache> prefix_cache;
  BlockManager blocks;
  Scheduler scheduler;
  EncoderCache encoder_cache;
  std::vector<std::unique_ptr<backend::KvCache>> caches;  // by rank

  RequestId next_id = 0;
  StepBatch batch;
  StepEvents events;
  SessionCounters counters;
  std::vector<std::vector<float>> hidden;    // by rank: [output rows, hidden size]
  std::vector<std::int32_t> sampled_tokens;  // by the device; kNotSampled: from logits
  std::vector<float> logits;                 // [sampled sequences, vocabulary]
  std::vector<const Sequence*> finished;
};

Session::State::State(std::shared_ptr<Model> its_model, const SessionOptions& its_options)
    : model(std::move(its_model)),
      options(its_options),
      limits(resolve_limits(options, *model)),
      prefix_cache(options.engine.enable_prefix_caching ? std::optional<PrefixCache>(limits.num_blocks) : std::nullopt),
      blocks(limits.num_blocks, prefix_cache ? &*prefix_cache : nullptr),
      scheduler(scheduler_limits(options.engine), blocks, prefix_cache ? &*prefix_cache : nullptr),
      encoder_cache(options.engine.max_num_batched_tokens),
      caches(model->ranks()),
      hidden(model->ranks()) {
  const bool fp8_attention =
      options.engine.attention_dtype == "fp8" && options.kv_cache_dtype == profile::KvCacheDtype::kFp8E4M3;
  if (fp8_attention && !model->has_fp8_attention()) {
    throw DeviceError("engine.attention_dtype fp8 is not to be had on this device; use \"auto\"");
  }
  const backend::KvCacheOptions cache{options.kv_cache_dtype, limits.num_blocks,      limits.block_size,
                                      options.kv_scales,      options.kv_read_scales, fp8_attention};
  try {
    model->run([&](backend::Executor& executor, int rank) { caches[rank] = executor.make_cache(cache); });
  } catch (const std::bad_alloc&) {
    throw DeviceError(
        fmt::format("not enough memory for {} KV blocks; lower engine.cpu_kv_cache_gib", cache.num_blocks));
  }
}

/// Every rank does the same: encodes the new pictures, runs the step, and computes what the host needs of it: tokens
/// where the device can choose them, logits where it cannot, hidden states where rows are scored.
void Session::State::execute() {
  const backend::StepInput input = batch.input(options.observer);
  const std::size_t sampled = batch.sampled().size(), width = model->config().text.hidden_size;
  const bool device_samples = std::all_of(batch.sampled().begin(), batch.sampled().end(), [](const Sequence* sequence) {
    return sequence->request.sampling.temperature < kGreedyTemperature;
  });
  sampled_tokens.assign(sampled, kNotSampled);
  model->run([&](backend::Executor& executor, int rank) {
    for (const auto& item : batch.to_encode()) item.picture->ranks[rank] = executor.encode(*item.image);
    executor.execute(input, *caches[rank], batch.features(rank));
    const bool greedily = sampled > 0 && device_samples && executor.reduces_logits();
    if (greedily) {
      std::vector<std::int32_t> tokens(sampled);
      executor.greedy(tokens);
      if (rank == 0) sampled_tokens = std::move(tokens);
    }
    const bool reads = !batch.scored().empty() || (sampled > 0 && !greedily);
    if (!reads) return executor.synchronize();
    hidden[rank].resize(batch.num_outputs() * width);
    executor.read_hidden(hidden[rank]);
    if (sampled == 0 || greedily) return;
    if (rank == 0) logits.resize(sampled * static_cast<std::size_t>(model->config().text.vocab_size));
    const auto states = std::span<const float>(hidden[rank]).first(sampled * width);
    executor.logits(states, static_cast<int>(sampled), rank == 0 ? std::span<float>(logits) : std::span<float>());
  });
}

std::int32_t Session::State::sampled_token(std::size_t row, const Sequence& sequence) const {
  if (sampled_tokens[row] == backend::kNoToken) throw_not_finite();
  if (sampled_tokens[row] != kNotSampled) return sampled_tokens[row];
  const std::size_t vocabulary = model->config().text.vocab_size;
  const auto its_logits = std::span<const float>(logits).subspan(row * vocabulary, vocabulary);
  return sample(its_logits, sequence.request.sampling, sequence.generated());
}

void Session::State::complete(const Schedule& schedule) {
  for (const Chunk& chunk : schedule.chunks) {
    (chunk.decode() ? events.decode_tokens : events.prefill_tokens) += chunk.count;
    if (chunk.decode()) events.context_tokens += chunk.end();
    scheduler.complete(chunk);
    Sequence& sequence = *chunk.sequence;
    for (std::size_t i = 0; i < sequence.pictures.size(); ++i) {
      const bool passed = sequence.pictures[i].first + sequence.pictures[i].count <= sequence.computed;
      if (passed) sequence.features[i].reset();
    }
  }
}

void Session::State::emit_tokens() {
  for (std::size_t row = 0; row < batch.sampled().size(); ++row) {
    Sequence& sequence = *batch.sampled()[row];
    const int index = sequence.generated();
    const std::int32_t token = sampled_token(row, sequence);
    sequence.tokens.push_back(token);
    const FinishReason reason = finish_reason(sequence, token);
    events.tokens.push_back({sequence.id, token, index, reason, sequence.prefix_hit});
    if (reason != FinishReason::kNone) finished.push_back(&sequence);
  }
}

FinishReason Session::State::finish_reason(const Sequence& sequence, std::int32_t token) const {
  const auto& request = sequence.request;
  // A request's own stop ids are its dataset's end of text (a checkpoint may not say which they are): ignore_eos means
  // both, so that outputs have the length that was asked for.
  const bool end_of_text =
      contains(model->config().generation.eos_token_ids, token) || contains(request.stop_ids, token);
  if (end_of_text && !request.ignore_eos) return FinishReason::kStop;
  if (sequence.generated() >= request.max_tokens || sequence.length() >= limits.max_model_len) {
    return FinishReason::kLength;
  }
  return FinishReason::kNone;
}

void Session::State::emit_scores() {
  const std::size_t width = model->config().text.hidden_size;
  for (const auto& scored : batch.scored()) {
    Sequence& sequence = *scored.sequence;
    sequence.next_score = scored.first_score + scored.count;
    const bool last = sequence.next_score == static_cast<int>(sequence.request.forced.size());
    const auto begin = hidden[0].begin() + static_cast<std::ptrdiff_t>(scored.first_output * width);
    const auto end = begin + static_cast<std::ptrdiff_t>(scored.count * width);
    events.scores.push_back({sequence.id, scored.first_score, scored.count, {begin, end}, last});
    if (last) finished.push_back(&sequence);
  }
}

void Session::State::finish_sequences() {
  for (const Sequence* sequence : finished) scheduler.finish(*sequence);
  finished.clear();
}

Session::Session(std::shared_ptr<Model> model, const SessionOptions& options)
    : state_(std::make_unique<State>(std::move(model), options)) {}
Session::~Session() = default;

RequestId Session::submit(workload::Request request) {
  State& state = *state_;
  state.scheduler.add(make_sequence(state.next_id, std::move(request), state.model->config(), state.limits));
  return state.next_id++;
}

const StepEvents& Session::step() {
  State& state = *state_;
  state.events = {};
  if (state.scheduler.idle()) return state.events;

  Schedule schedule = state.scheduler.schedule();
  state.batch.build(schedule, state.encoder_cache, state.model->ranks());
  state.execute();
  state.complete(schedule);
  state.emit_tokens();
  state.emit_scores();
  state.finish_sequences();

  state.events.admitted = std::move(schedule.admitted);
  ++state.counters.steps;
  state.counters.images_encoded += static_cast<std::int64_t>(state.batch.to_encode().size());
  state.counters.preemptions = state.scheduler.preemptions();
  state.counters.prompt_tokens = state.scheduler.queried_tokens();
  state.counters.prefix_hit_tokens = state.scheduler.hit_tokens();
  return state.events;
}

bool Session::idle() const { return state_->scheduler.idle(); }
int Session::num_running() const { return static_cast<int>(state_->scheduler.running().size()); }
int Session::num_waiting() const { return static_cast<int>(state_->scheduler.waiting().size()); }
int Session::num_blocks() const { return state_->blocks.num_blocks(); }
const SessionCounters& Session::counters() const { return state_->counters; }
std::vector<double> Session::collective_seconds() const { return state_->model->collective_seconds(); }

void Session::reset(bool drop_prefix_cache) {
  state_->scheduler.drop_all();
  if (!drop_prefix_cache) return;
  state_->encoder_cache.clear();
  if (state_->prefix_cache) state_->prefix_cache->clear();
}

std::vector<std::int32_t> Session::block_table(RequestId request) const {
  for (const auto& sequence : state_->scheduler.running()) {
    if (sequence->id == request) return sequence->blocks;
  }
  return {};
}

const backend::KvCache& Session::cache(int rank) const { return *state_->caches.at(rank); }

}  // namespace qwenbench::engine
