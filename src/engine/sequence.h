// One request at work, as the scheduler and the session see it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/pictures.h"
#include "engine/prefix_cache.h"
#include "engine/session.h"
#include "workload/request.h"

namespace qwenbench::engine {

struct EncodedPicture;

struct Sequence {
  Sequence(RequestId sequence_id, workload::Request its_request, std::vector<PictureSpan> its_pictures);

  RequestId id;
  workload::Request request;

  /// Everything whose K and V are to be computed: the prompt, then what was generated; or what is forced, without its
  /// last token, which predicts nothing that is scored.
  std::vector<std::int32_t> tokens;
  int prompt_length;
  int computed = 0;     // of `tokens`, in the cache
  int prefill_end;      // tokens below were known when the sequence was (re)admitted: computing them is prefill
  int preemptions = 0;  // how often it was sent back to the queue
  int prefix_hit = 0;   // tokens that the prefix cache answered when it was first admitted

  std::vector<std::int32_t> blocks;  // the block table, enough for what is computed and scheduled
  std::vector<BlockKey> keys;        // of the full blocks of `tokens`; filled only with prefix caching
  int cached_blocks = 0;             // the first so many of `blocks` are known to the prefix cache

  std::vector<PictureSpan> pictures;
  std::vector<PictureIdentity> identities;  // the same, for the keys
  RopePositions positions;
  std::vector<std::shared_ptr<const EncodedPicture>> features;  // by picture, held from its first pad to its last

  int next_score = 0;  // index into request.forced of the next position to report

  bool forced() const { return !request.forced.empty(); }
  int length() const { return static_cast<int>(tokens.size()); }
  int remaining() const { return length() - computed; }
  int generated() const { return length() - prompt_length; }

  /// The token whose hidden state is the first that is wanted: it and all after it must be computed, so the prefix
  /// cache may answer for the tokens before it only.
  int first_wanted() const { return forced() ? prompt_length - 1 + next_score : length() - 1; }

  /// Most tokens that it can ever have in the cache.
  int max_length(int max_model_len) const;
};

/// What a session accepts; each limit in tokens unless said otherwise.
struct RequestLimits {
  int max_model_len;
  int max_num_batched_tokens;
  bool chunked_prefill;
  int max_images;  // a prompt
  int num_blocks;
  int block_size;
};

/// Checks the request and lays it out. Throws InputError naming the request where it can never run.
std::unique_ptr<Sequence> make_sequence(RequestId id, workload::Request request, const model::ModelConfig& config,
                                        const RequestLimits& limits);

inline int blocks_for(int tokens, int block_size) { return (tokens + block_size - 1) / block_size; }

}  // namespace qwenbench::engine
