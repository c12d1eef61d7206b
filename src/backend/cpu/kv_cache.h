// One rank's paged KV cache in main memory, block by block: [layer][head][tile], tiles of 16 tokens each, K transposed
// [head_dim][16], V [16][head_dim], as the attention kernel reads them. What all layers and heads keep of a sequence so
// lies in few large pages.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

namespace qwenbench::backend::cpu {

class CpuKvCache : public KvCache {
 public:
  /// Throws InputError where block_size is no multiple of 16 or scales are missing; DeviceError where memory is short.
  CpuKvCache(const graph::Plan& plan, int rank, const KvCacheOptions& options);

  std::vector<std::byte> stored(int layer, std::int64_t slot, int local_head, bool key) const override;

  /// Stores K and V [head_dim] of one token.
  void append(const Kernels& kernels, int layer, int local_head, std::int64_t slot, const float* k, const float* v);

  /// Fills in where the keys of a layer and head lie, and how they are scaled.
  void describe(int layer, int local_head, AttentionArgs& args) const;

  int block_size() const { return block_size_; }
  bool fp8_attention() const { return fp8_attention_; }
  float q_scale(int layer, int local_head) const { return read_scales_[layer * heads_ + local_head].q; }

 private:
  std::int64_t head_offset(int layer, int local_head) const {
    return (std::int64_t{layer} * heads_ + local_head) * head_bytes_;
  }
  std::int64_t tile_offset(std::int64_t slot) const {
    return slot / block_size_ * block_bytes_ + slot % block_size_ / kTokenTile * tile_bytes_;
  }

  /// Anonymous pages: zero, aligned, taken only as they are written, and large where the system has large ones: reading
  /// 16 sequences goes through more small pages than a processor remembers.
  class Pages {
   public:
    explicit Pages(std::size_t bytes);
    ~Pages();
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;
    std::uint8_t* get() const { return data_; }

   private:
    std::uint8_t* data_;
    std::size_t bytes_;
  };
  struct Scale {
    float k = 1, v = 1, q = 1, prob = 0x1p-8f;
  };
  /// [layer][local head] of `layers` (empty: 1).
  std::vector<Scale> local_scales(const graph::Plan& plan, int rank,
                                  const std::vector<model::LayerKvScales>& layers) const;

  CacheForm form_;
  bool fp8_attention_;
  int element_;  // bytes
  int head_dim_, heads_, block_size_;
  std::int64_t tile_bytes_, head_bytes_, block_bytes_;  // the latter two: of one head in a block, of a whole block
  std::vector<Scale> scales_, read_scales_;             // [layer][local head]
  std::unique_ptr<Pages> keys_, values_;
};

}  // namespace qwenbench::backend::cpu
