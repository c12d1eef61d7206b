// One variant of the experiment at work: a KV cache over shared weights, a scheduler, a prefix cache. Reads no clock.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/model.h"
#include "workload/request.h"

namespace qwenbench::engine {

struct SessionOptions {
  profile::EngineOptions engine;
  profile::KvCacheDtype kv_cache_dtype = profile::KvCacheDtype::kBFloat16;
  std::vector<model::LayerKvScales> kv_scales;       // empty: every scale is 1
  std::vector<model::LayerKvScales> kv_read_scales;  // for the delivery test (backend.h); empty: the same
  int num_blocks = 0;                                // KV blocks; 0: what the engine options' memory allows
  backend::KvObserver* observer = nullptr;  // sees every K and V that the cache stores; must outlive the session
};

using RequestId = std::int64_t;

enum class FinishReason { kNone, kStop, kLength };

struct TokenEvent {
  RequestId request;
  std::int32_t token;
  int index;  // 0: the first output token
  FinishReason finish = FinishReason::kNone;
  int prefix_hit = 0;  // tokens of the prompt that the prefix cache answered
};

/// Final hidden states (after the last norm) of consecutive scored positions of a teacher-forced request: row i is the
/// state that predicts forced[first + i].
struct ScoreEvent {
  RequestId request;
  int first;
  int count;
  std::vector<float> hidden;  // [count, hidden_size]
  bool last = false;
};

/// What one step did.
struct StepEvents {
  std::vector<RequestId> admitted;  // left the queue in this step
  std::vector<TokenEvent> tokens;
  std::vector<ScoreEvent> scores;
  int prefill_tokens = 0;  // computed (not taken from the prefix cache)
  int decode_tokens = 0;
  std::int64_t context_tokens = 0;  // KV positions that decoding sequences read
};

struct SessionCounters {
  std::int64_t preemptions = 0;
  std::int64_t prompt_tokens = 0;      // asked of the prefix cache
  std::int64_t prefix_hit_tokens = 0;  // answered by it
  std::int64_t images_encoded = 0;
  std::int64_t steps = 0;
};

class Session {
 public:
  Session(std::shared_ptr<Model> model, const SessionOptions& options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Queues a request. Throws InputError where it can never run: empty, longer than max_model_len, more pictures than
  /// limit_mm_per_prompt, longer than one step without chunked prefill, more than all KV blocks.
  RequestId submit(workload::Request request);

  /// schedule -> execute -> postprocess. An idle session does nothing. The result is valid until the next call.
  const StepEvents& step();

  bool idle() const;
  int num_running() const;
  int num_waiting() const;
  int num_blocks() const;
  const SessionCounters& counters() const;
  /// Of the model: see Model::collective_seconds().
  std::vector<double> collective_seconds() const;

  /// Drops all requests and, if asked, forgets cached prefixes.
  void reset(bool drop_prefix_cache);

  /// For tests: the block table of a running request, and one rank's cache.
  std::vector<std::int32_t> block_table(RequestId request) const;
  const backend::KvCache& cache(int rank) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qwenbench::engine
