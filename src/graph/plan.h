// The Qwen3-VL graph, written once as data: a list of typed operations over named operands. The CPU backend interprets
// it operation by operation; the CUDA backend compiles it, and may fuse, prefetch and capture without any change here.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "model/config.h"

namespace qwenbench::graph {

/// What the rows of a buffer stand for; their number is known only when a step runs.
enum class Rows {
  kTokens,   // tokens of the step
  kOutputs,  // the tokens whose final hidden state is wanted
  kPatches,  // patches of one picture, in merge-block order
  kMerged,   // patches / merge_unit
};

/// What an activation's elements must keep. A backend that computes in fp32 throughout may ignore it.
enum class Precision {
  kNarrow,  // as precise as the model's 16-bit weights
  kWide,    // fp32: the residual stream, which sums over all layers
};

/// An activation matrix [rows, width]; width is what one rank holds.
struct Buffer {
  std::string name;
  Rows rows;
  int width;
  Precision precision = Precision::kNarrow;
};
using BufferId = int;

/// How a Linear's [n, k] weight is split over ranks (as vLLM shards).
enum class Shard {
  kReplicated,
  kColumns,  // each rank computes n / ranks outputs
  kRows,     // each rank sums k / ranks inputs; an all-reduce follows
};

/// Rows [row_begin, row_begin + rows) of the stored module `module` [module_n, k]; `rows` are split over ranks in
/// ranks / copies equal parts, each held by `copies` neighbouring ranks (KV heads when there are more ranks than
/// heads).
struct LinearPart {
  std::string module;
  int module_n;
  int row_begin;
  int rows;
  int copies = 1;
};

/// One matrix product out = in * W^T (+ bias). Parts are stacked along n: fused QKV, fused gate and up.
struct LinearSpec {
  std::vector<LinearPart> parts;
  int k;  // of the whole model, before a row split
  Shard shard = Shard::kReplicated;
  bool bias = false;  // "<module>.bias"; with kRows it is added after the all-reduce
};
using LinearId = int;

struct NormSpec {
  std::string weight;
  std::string bias;  // empty: RMSNorm
  int width;
  float eps;
};
using NormId = int;
inline constexpr NormId kNoNorm = -1;

enum class Activation { kNone, kGeluTanh, kGeluErf };

// ---- operations; every one reads and writes whole buffers of the step ----

/// out = embedding row of each token; a rank that does not hold the row writes zeros. An AllReduce follows.
struct Embed {
  BufferId out;
};
/// x = sum over ranks (+ bias of a Linear, added once).
struct AllReduce {
  BufferId x;
  bool reduce = true;     // false: x is already whole on every rank
  LinearId bias_of = -1;  // -1: none
};
/// Rows of x at image pads become the picture's merged features.
struct PlaceVisual {
  BufferId x;
};
/// out = norm(in): RMSNorm, or LayerNorm where the norm has a bias. in, a wide buffer, may be
/// narrower than the norm: neighbouring patch rows are then read as one.
struct Norm {
  BufferId in, out;
  NormId norm;
};
/// out = activation(in W^T + bias); the bias of a row-split Linear is left to the AllReduce that follows it. in may be
/// reshaped: merged rows read merge_unit neighbouring patch rows as one.
struct Linear {
  BufferId in, out;
  LinearId weight;
  Activation activation = Activation::kNone;
};
/// From fused qkv: RMSNorm of each q and k head, interleaved M-RoPE; q goes to q_out, k and v into the KV cache.
struct QkNormRopeAppend {
  BufferId qkv, q_out;
  NormId q_norm, k_norm;
  int layer;
};
/// Causal attention of q over what the cache stores for its sequence, scale head_dim^-0.5. Rows of q are tokens, or the
/// wanted ones.
struct PagedAttention {
  BufferId q, out;
  int layer;
};
/// residual = x; out = norm(residual): where a stream of half layers begins.
struct BeginResidual {
  BufferId x, residual, out;
  NormId norm;
};
/// residual += sum over ranks of partial (+ bias) (+ DeepStack features at visual rows); out = norm(residual)
/// (kNoNorm: out is left alone).
struct AllReduceAddNorm {
  BufferId partial, residual, out;
  NormId norm;
  LinearId bias_of = -1;     // the Linear whose bias is added once; -1: none
  int deepstack_level = -1;  // -1: none
  bool reduce = true;        // false: partial is already whole on every rank
};
/// out = silu(gate) * up, in = [gate, up].
struct SwiGlu {
  BufferId in, out;
};
/// out = the rows of in that the step wants.
struct SelectOutputs {
  BufferId in, out;
};
/// out = the concatenation over ranks of in's columns.
struct AllGather {
  BufferId in, out;
};
/// x += the learned position table, bilinearly interpolated to the picture's grid.
struct AddPositionEmbedding {
  BufferId x;
};
/// 2-D RoPE on the q and k parts of qkv, in place.
struct VisionRope {
  BufferId qkv;
};
/// Full attention within one picture. qkv = [q, k, v] of this rank's heads.
struct VisionAttention {
  BufferId qkv, out;
};

using Op =
    std::variant<Embed, AllReduce, PlaceVisual, Norm, Linear, QkNormRopeAppend, PagedAttention, BeginResidual,
                 AllReduceAddNorm, SwiGlu, SelectOutputs, AllGather, AddPositionEmbedding, VisionRope, VisionAttention>;

/// One straight-line program. `input` is filled by the caller before it runs; `outputs` are read after it.
struct Program {
  std::vector<Buffer> buffers;
  std::vector<Op> ops;
  BufferId input = -1;
  std::vector<BufferId> outputs;
};

/// Everything one rank needs to know of the model. Linear and norm tables are shared by the programs.
struct Plan {
  model::ModelConfig config;
  int ranks = 1;
  bool vision_sharded = true;  // false: every rank computes the whole tower (its heads do not divide)
  int local_heads = 0, local_kv_heads = 0;
  int local_vision_heads = 0;
  std::vector<LinearSpec> linears;
  std::vector<NormSpec> norms;
  std::string embedding;           // tensor [vocab, hidden], split by rows over ranks
  std::string position_embedding;  // tensor [positions, hidden of the tower]
  Program text;                    // tokens -> final hidden states (after the last norm) of the wanted rows
  Program head;                    // hidden states -> logits
  Program vision;  // patches -> merged features, then one DeepStack level after another; [merged rows, hidden] each
};

/// Throws InputError where `ranks` does not divide heads, intermediate size or vocabulary as needed.
Plan build_plan(const model::ModelConfig& config, int ranks);

/// This rank's rows of a part.
struct RowRange {
  int begin, count;
};
RowRange local_rows(const LinearSpec& linear, const LinearPart& part, int rank, int ranks);

/// Outputs and inputs of a Linear on one rank.
int local_n(const LinearSpec& linear, int ranks);
int local_k(const LinearSpec& linear, int ranks);

}  // namespace qwenbench::graph
