#include "backend/cpu/kv_cache.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace qwenbench::backend::cpu {
namespace {

CacheForm form_of(profile::KvCacheDtype dtype) {
  switch (dtype) {
    case profile::KvCacheDtype::kFloat32:
      return CacheForm::kF32;
    case profile::KvCacheDtype::kBFloat16:
      return CacheForm::kBF16;
    default:
      return CacheForm::kE4M3;
  }
}

float scale_of_head(const std::vector<float>& scales, int head, int num_heads, int layer) {
  if (scales.size() == 1) return scales[0];
  if (static_cast<int>(scales.size()) == num_heads) return scales[head];
  throw InputError(fmt::format("layer {} has {} KV scales; expected one, or one for each of {} KV heads", layer,
                               scales.size(), num_heads));
}

/// One scale for the queries of a KV head: where each query head has its own, the largest saturates nothing.
float query_scale(const std::vector<float>& scales, int head, const model::TextConfig& text, int layer) {
  if (static_cast<int>(scales.size()) != text.num_heads || text.num_heads == text.num_kv_heads)
    return scale_of_head(scales, head, text.num_kv_heads, layer);
  const int group = text.num_heads / text.num_kv_heads;
  return *std::max_element(scales.begin() + head * group, scales.begin() + (head + 1) * group);
}

}  // namespace

CpuKvCache::Pages::Pages(std::size_t bytes) : bytes_(bytes) {
  void* pages = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED)
    throw DeviceError(
        fmt::format("no memory for a KV cache of {} MiB; lower engine.cpu_kv_cache_gib", 2 * bytes >> 20));
  data_ = static_cast<std::uint8_t*>(pages);
#ifdef MADV_HUGEPAGE
  ::madvise(pages, bytes, MADV_HUGEPAGE);  // a wish: small pages serve as well
#endif
}

CpuKvCache::Pages::~Pages() { ::munmap(data_, bytes_); }

CpuKvCache::CpuKvCache(const graph::Plan& plan, int rank, const KvCacheOptions& options)
    : form_(form_of(options.dtype)),
      fp8_attention_(options.fp8_attention && form_ == CacheForm::kE4M3),
      element_(form_ == CacheForm::kF32    ? 4
               : form_ == CacheForm::kBF16 ? 2
                                           : 1),
      head_dim_(plan.config.text.head_dim),
      heads_(plan.local_kv_heads),
      block_size_(options.block_size) {
  const auto& text = plan.config.text;
  if (block_size_ < kTokenTile || block_size_ % kTokenTile != 0)
    throw InputError(fmt::format("block_size {}: the CPU backend takes multiples of {}", block_size_, kTokenTile));
  tile_bytes_ = std::int64_t{head_dim_} * kTokenTile * element_;
  head_bytes_ = block_size_ / kTokenTile * tile_bytes_;
  block_bytes_ = head_bytes_ * heads_ * text.num_layers;
  scales_ = local_scales(plan, rank, options.scales);
  read_scales_ = options.read_scales.empty() ? scales_ : local_scales(plan, rank, options.read_scales);
  const std::size_t bytes = static_cast<std::size_t>(std::max<std::int64_t>(1, block_bytes_ * options.num_blocks));
  keys_ = std::make_unique<Pages>(bytes);
  values_ = std::make_unique<Pages>(bytes);
}

std::vector<CpuKvCache::Scale> CpuKvCache::local_scales(const graph::Plan& plan, int rank,
                                                        const std::vector<model::LayerKvScales>& layers) const {
  const auto& text = plan.config.text;
  std::vector<Scale> scales(static_cast<std::size_t>(text.num_layers) * heads_);
  if (form_ != CacheForm::kE4M3 || layers.empty()) return scales;
  if (static_cast<int>(layers.size()) != text.num_layers)
    throw InputError(fmt::format("{} layers of KV scales for a model of {} layers", layers.size(), text.num_layers));
  for (int layer = 0; layer < text.num_layers; ++layer) {
    for (int h = 0; h < heads_; ++h) {
      const int head = plan.ranks > text.num_kv_heads ? rank / (plan.ranks / text.num_kv_heads) : rank * heads_ + h;
      Scale& scale = scales[layer * heads_ + h];
      scale.k = scale_of_head(layers[layer].k, head, text.num_kv_heads, layer);
      scale.v = scale_of_head(layers[layer].v, head, text.num_kv_heads, layer);
      if (layers[layer].q) scale.q = query_scale(*layers[layer].q, head, text, layer);
      scale.prob = layers[layer].prob.value_or(scale.prob);
    }
  }
  return scales;
}

void CpuKvCache::append(const Kernels& kernels, int layer, int local_head, std::int64_t slot, const float* k,
                        const float* v) {
  constexpr int kMaxHeadDim = 512;
  alignas(64) std::uint8_t encoded[kMaxHeadDim * 4];
  const Scale& scale = scales_[layer * heads_ + local_head];
  const std::int64_t base = head_offset(layer, local_head) + tile_offset(slot), token = slot % kTokenTile;
  std::uint8_t* key = keys_->get() + base + token * element_;
  kernels.encode(form_, k, scale.k, encoded, head_dim_);
  const std::int64_t stride = kTokenTile * element_;
  switch (element_) {
    case 1:
      for (int i = 0; i < head_dim_; ++i) key[i * stride] = encoded[i];
      break;
    case 2:
      for (int i = 0; i < head_dim_; ++i) std::memcpy(key + i * stride, encoded + 2 * i, 2);
      break;
    default:
      for (int i = 0; i < head_dim_; ++i) std::memcpy(key + i * stride, encoded + 4 * i, 4);
      break;
  }
  kernels.encode(form_, v, scale.v, values_->get() + base + token * head_dim_ * element_, head_dim_);
}

void CpuKvCache::describe(int layer, int local_head, AttentionArgs& args) const {
  args.form = form_;
  args.keys = keys_->get() + head_offset(layer, local_head);
  args.values = values_->get() + head_offset(layer, local_head);
  args.tiles_per_block = block_size_ / kTokenTile;
  args.block_stride = block_bytes_;
  args.tile_stride = tile_bytes_;
  args.head_dim = head_dim_;
  const Scale& scale = read_scales_[layer * heads_ + local_head];
  args.scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
  if (!fp8_attention_) {
    args.k_scale = scale.k;
    args.v_scale = scale.v;
    return;
  }
  args.scale *= scale.q * scale.k;
  args.prob_scale = scale.prob;
  args.out_scale = scale.prob * scale.v;
}

std::vector<std::byte> CpuKvCache::stored(int layer, std::int64_t slot, int local_head, bool key) const {
  std::vector<std::byte> out(static_cast<std::size_t>(head_dim_) * element_);
  const std::int64_t base = head_offset(layer, local_head) + tile_offset(slot), token = slot % kTokenTile;
  for (int i = 0; i < head_dim_; ++i) {
    const std::uint8_t* from = key ? keys_->get() + base + (std::int64_t{i} * kTokenTile + token) * element_
                                   : values_->get() + base + (token * head_dim_ + i) * element_;
    std::memcpy(out.data() + static_cast<std::size_t>(i) * element_, from, static_cast<std::size_t>(element_));
  }
  return out;
}

}  // namespace qwenbench::backend::cpu
