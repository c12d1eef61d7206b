#include "backend/cuda/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/decode_attention.h"

namespace qwenbench::backend::cuda {
namespace {

kernels::KvDtype dtype_of(profile::KvCacheDtype dtype) {
  switch (dtype) {
    case profile::KvCacheDtype::kBFloat16:
      return kernels::KvDtype::kBFloat16;
    case profile::KvCacheDtype::kFp8E4M3:
      return kernels::KvDtype::kFp8E4M3;
    default:
      throw InputError("a GPU's kv_cache_dtype is bfloat16 or fp8_e4m3; float32 is for tests on the CPU");
  }
}

float scale_of(const std::vector<float>& scales, int head, int layer) {
  if (scales.size() == 1) return scales[0];
  if (head >= static_cast<int>(scales.size()))
    throw InputError(fmt::format("layer {} has {} KV scales, too few for its heads", layer, scales.size()));
  return scales[static_cast<std::size_t>(head)];
}

/// One scale for the queries of a KV head: where each query head has its own, the largest saturates nothing.
float query_scale(const std::vector<float>& scales, int kv_head, int layer, const model::TextConfig& text) {
  const int group = text.num_heads / text.num_kv_heads;
  if (static_cast<int>(scales.size()) != text.num_heads || group == 1) return scale_of(scales, kv_head, layer);
  const auto first = scales.begin() + kv_head * group;
  return *std::max_element(first, first + group);
}

}  // namespace

Graph::Graph(cudaGraph_t captured, std::uint64_t generation) : generation_(generation) {
  const cudaError_t error = cudaGraphInstantiate(&executable_, captured, 0);
  cudaGraphDestroy(captured);
  QWENBENCH_CUDA(error);
}

Graph::~Graph() {
  if (executable_) cudaGraphExecDestroy(executable_);
}

CudaKvCache::CudaKvCache(const graph::Plan& plan, int rank, int device, const KvCacheOptions& options)
    : device_(device),
      dtype_(dtype_of(options.dtype)),
      element_(dtype_ == kernels::KvDtype::kFp8E4M3 ? 1 : 2),
      layers_(plan.config.text.num_layers),
      heads_(plan.local_kv_heads),
      head_dim_(plan.config.text.head_dim),
      block_size_(options.block_size),
      num_blocks_(options.num_blocks) {
  const auto& read = options.read_scales.empty() ? options.scales : options.read_scales;
  std::vector<float> scales = local_scales(plan, rank, options.scales);
  const std::vector<float> read_scales = local_scales(plan, rank, read);
  scales.insert(scales.end(), read_scales.begin(), read_scales.end());
  keys_.reserve(layer_bytes() * layers_);
  values_.reserve(layer_bytes() * layers_);
  scales_.reserve(scales.size());
  copy_to_device(scales_.get(), scales.data(), scales.size());
  if (options.fp8_attention && is_fp8()) set_fp8_attention(plan, rank, read);
}

void CudaKvCache::set_fp8_attention(const graph::Plan& plan, int rank,
                                    const std::vector<model::LayerKvScales>& layers) {
  std::vector<float> q(static_cast<std::size_t>(layers_) * heads_, 1.0f);
  prob_scales_.assign(static_cast<std::size_t>(layers_), kernels::DecodeAttention{}.prob_scale);
  const int copies = std::max(1, plan.ranks / plan.config.text.num_kv_heads), first_head = rank / copies * heads_;
  for (int layer = 0; layer < static_cast<int>(layers.size()); ++layer) {
    const model::LayerKvScales& scales = layers[layer];
    if (scales.prob) prob_scales_[static_cast<std::size_t>(layer)] = *scales.prob;
    if (!scales.q) continue;
    for (int head = 0; head < heads_; ++head)
      q[static_cast<std::size_t>(layer) * heads_ + head] =
          query_scale(*scales.q, first_head + head, layer, plan.config.text);
  }
  q_scales_.reserve(q.size());
  copy_to_device(q_scales_.get(), q.data(), q.size());
}

const float* CudaKvCache::q_scale(int layer) const {
  return q_scales_.size() == 0 ? nullptr : q_scales_.get() + static_cast<std::size_t>(layer) * heads_;
}

std::vector<float> CudaKvCache::local_scales(const graph::Plan& plan, int rank,
                                             const std::vector<model::LayerKvScales>& layers) const {
  if (!layers.empty() && static_cast<int>(layers.size()) != layers_)
    throw InputError(fmt::format("there are KV scales of {} layers; the model has {}", layers.size(), layers_));
  std::vector<float> scales(static_cast<std::size_t>(layers_) * 2 * heads_, 1.0f);
  const int copies = std::max(1, plan.ranks / plan.config.text.num_kv_heads), first_head = rank / copies * heads_;
  for (int layer = 0; layer < static_cast<int>(layers.size()); ++layer) {
    for (int head = 0; head < heads_; ++head) {
      float* out = scales.data() + static_cast<std::size_t>(layer) * 2 * heads_ + head;
      out[0] = scale_of(layers[layer].k, first_head + head, layer);
      out[heads_] = scale_of(layers[layer].v, first_head + head, layer);
    }
  }
  return scales;
}

CudaKvCache::~CudaKvCache() { cudaSetDevice(device_); }

kernels::KvLayer CudaKvCache::layer(int index, Side side) const {
  kernels::KvLayer layer{};
  layer.k = keys_.get() + layer_bytes() * index;
  layer.v = values_.get() + layer_bytes() * index;
  layer.dtype = dtype_;
  layer.kv_heads = heads_;
  layer.block_size = block_size_;
  const int row = side == Side::kWrite ? index : layers_ + index;
  layer.k_scale = scales_.get() + static_cast<std::size_t>(row) * 2 * heads_;
  layer.v_scale = layer.k_scale + heads_;
  return layer;
}

std::vector<std::byte> CudaKvCache::stored(int layer, std::int64_t slot, int local_head, bool key) const {
  const std::size_t token_bytes = head_dim_ * element_;
  const std::size_t offset = layer_bytes() * layer + (slot / block_size_ * heads_ + local_head) * head_bytes() +
                             static_cast<std::size_t>(slot % block_size_) * token_bytes;
  std::vector<std::byte> codes(token_bytes);
  QWENBENCH_CUDA(cudaSetDevice(device_));
  QWENBENCH_CUDA(cudaMemcpy(codes.data(), (key ? keys_ : values_).get() + offset, token_bytes, cudaMemcpyDeviceToHost));
  return codes;
}

}  // namespace qwenbench::backend::cuda
