// What the engine asks of a device: one Executor a rank, which owns that rank's weights and runs the plan.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/token_score.h"
#include "comm/communicator.h"
#include "graph/plan.h"
#include "model/weights.h"
#include "profile/profile.h"
#include "workload/request.h"

namespace qwenbench::backend {

/// One rank's share of the paged KV cache of one Session. The block tables are the engine's.
class KvCache {
 public:
  virtual ~KvCache() = default;
  /// The stored K (key = true) or V codes of one slot (block * block_size + offset) and one of this rank's heads, as
  /// raw bytes [head_dim * bytes of the cache's dtype]: for tests.
  virtual std::vector<std::byte> stored(int layer, std::int64_t slot, int local_head, bool key) const = 0;
};

struct KvCacheOptions {
  profile::KvCacheDtype dtype = profile::KvCacheDtype::kBFloat16;
  int num_blocks = 0;
  int block_size = 64;
  /// One entry a layer, of the whole model (heads are global); empty: every scale is 1. Used by FP8 only:
  /// stored = e4m3(bf16(x) / scale), read = stored * scale.
  std::vector<model::LayerKvScales> scales;
  /// The scales that reading multiplies by, where they are to differ from those that storing divides by: a deliberate
  /// fault, by which the delivery test sees that both sides use theirs. Empty: the same.
  std::vector<model::LayerKvScales> read_scales;
  /// FP8 cache only: attention multiplies in FP8, q8 = e4m3(bf16(q) / q_scale) with the stored codes of K, and
  /// p8 = e4m3(exp(S - running max) / prob_scale) with those of V; the sum of the weights is that of unrounded ones.
  /// Scales that are missing: q_scale 1, prob_scale 2^-8. Where has_fp8_attention() only.
  bool fp8_attention = false;
};

/// Bytes of one block on one rank.
std::size_t kv_block_bytes(const model::ModelConfig& config, int ranks, profile::KvCacheDtype dtype, int block_size);

/// One rank's features of one picture: merged [tokens, hidden], and as many for each DeepStack level.
class VisualFeatures {
 public:
  virtual ~VisualFeatures() = default;
};

/// Sees what the cache is about to store, before rounding: K after norm and RoPE, or V; and Q after norm and RoPE, as
/// attention in FP8 would convert it.
class KvObserver {
 public:
  virtual ~KvObserver() = default;
  enum class Kind { kKey, kValue, kQuery };
  /// A backend calls observe() for these only; the answer does not change while the observer is in use.
  virtual bool wants(Kind kind) const { return kind != Kind::kQuery; }
  /// values [tokens, head_dim] of one head, `stride` floats from one token to the next; `head` counts over the whole
  /// model (KV heads; query heads for Q); is_image[t] tells image pads. Called by every rank, from its own thread, for
  /// its own heads only.
  virtual void observe(Kind kind, int layer, int head, const float* values, int tokens, std::int64_t stride,
                       std::span<const std::uint8_t> is_image) = 0;
};

/// One forward step over tokens of several sequences; the same on every rank.
struct StepInput {
  struct Sequence {
    int first_row;  // its tokens are rows [first_row, first_row + num_rows)
    int num_rows;
    int kv_length;  // tokens in the cache after this step; the rows are the last num_rows of them
    std::span<const std::int32_t> blocks;  // its block table, enough for kv_length
  };
  struct VisualSpan {  // rows [first_row, first_row + num_rows) are tokens first_feature... of a picture
    int first_row;
    int num_rows;
    int first_feature;
    int picture;  // index into the features given to execute()
  };
  std::span<const std::int32_t> tokens;
  std::span<const std::array<std::int32_t, 3>> positions;  // T, H, W of every token
  std::span<const Sequence> sequences;
  std::span<const VisualSpan> visual;
  std::span<const std::int32_t> output_rows;  // ascending
  KvObserver* observer = nullptr;
};

inline constexpr std::int32_t kNoToken = -1;

/// One rank. Not thread-safe: one call at a time, from that rank's thread; where the plan has more than one rank, all
/// ranks make the same call at the same time.
class Executor {
 public:
  virtual ~Executor() = default;

  virtual bool has_fp8_attention() const { return false; }
  virtual std::unique_ptr<KvCache> make_cache(const KvCacheOptions& options) = 0;
  virtual std::shared_ptr<const VisualFeatures> encode(const workload::Image& image) = 0;

  /// `pictures` are this rank's features, indexed by VisualSpan::picture. The final hidden states of output_rows stay
  /// in the executor until the next call. May return before the device has done the work.
  virtual void execute(const StepInput& step, KvCache& cache,
                       std::span<const std::shared_ptr<const VisualFeatures>> pictures) = 0;

  /// Waits until the last step is done.
  virtual void synchronize() {}

  /// Copies the first rows of them out: [rows, hidden].
  virtual void read_hidden(std::span<float> out) = 0;

  /// hidden [rows, hidden] -> out [rows, vocab], whole on every rank; out may be empty on ranks other than 0.
  virtual void logits(std::span<const float> hidden, int rows, std::span<float> out) = 0;

  /// Whether greedy() and compare() work where the logits are; where not, the caller uses logits().
  virtual bool reduces_logits() const { return false; }

  /// The tokens with the largest logits after the first tokens.size() output rows of the last step: the lowest id among
  /// equals, kNoToken where no logit is a number. The same on every rank.
  virtual void greedy(std::span<std::int32_t> tokens);

  /// Both models' logits from their hidden states [rows, hidden], reduced to one score a row. The same on every rank.
  virtual void compare(std::span<const float> reference_hidden, std::span<const float> variant_hidden,
                       std::span<const std::int32_t> targets, std::span<TokenScore> out);

  /// Bytes of weights that one decode step reads: those of the text programs, whole.
  virtual std::size_t decode_weight_bytes() const { return 0; }

  /// Bytes a second that this rank's device can read; null where that is not measured.
  virtual std::optional<double> read_bandwidth() const { return std::nullopt; }

  /// How sums go from GPU to GPU: "p2p", "nccl" or "host"; "" for one rank, and on a CPU.
  virtual std::string communicator() const { return ""; }

  /// Seconds that this rank has spent in collectives since it was made, waiting for the others included; no step is
  /// under way. nullopt: not measured.
  virtual std::optional<double> collective_seconds() { return std::nullopt; }

  /// Bytes of weights held by this rank, in the form they are kept.
  virtual std::size_t weight_bytes() const = 0;
};

struct ExecutorOptions {
  int rank = 0;
  int threads = 1;                // CPU threads of this rank
  int device = 0;                 // GPU of this rank
  profile::EngineOptions engine;  // of a GPU: the largest step, CUDA graphs, all_reduce, pin_memory
  std::function<void(std::size_t bytes)>
      on_loaded;  // progress: called as weights are loaded, maybe from several threads
};

/// The CPU backend: fp32 activations and accumulation over weights that stay in their stored form; deterministic and
/// batch-invariant. `source` is needed only while loading.
std::unique_ptr<Executor> make_cpu_executor(const graph::Plan& plan, const model::WeightSource& source,
                                            std::shared_ptr<comm::Communicator> communicator,
                                            const ExecutorOptions& options);

/// The CUDA backend: bf16 activations, fp32 accumulation. `communicator` lets the ranks' threads agree; data goes from
/// GPU to GPU. Throws DeviceError where this build has no CUDA backend, or the GPU cannot hold the model.
std::unique_ptr<Executor> make_cuda_executor(const graph::Plan& plan, const model::WeightSource& source,
                                             std::shared_ptr<comm::Communicator> communicator,
                                             const ExecutorOptions& options);

}  // namespace qwenbench::backend
