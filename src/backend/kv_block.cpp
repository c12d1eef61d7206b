#include <algorithm>

#include "backend/backend.h"

namespace qwenbench::backend {

std::size_t kv_block_bytes(const model::ModelConfig& config, int ranks, profile::KvCacheDtype dtype, int block_size) {
  const auto& text = config.text;
  const std::size_t element = dtype == profile::KvCacheDtype::kFloat32    ? 4
                              : dtype == profile::KvCacheDtype::kBFloat16 ? 2
                                                                          : 1;
  const std::size_t local_heads = static_cast<std::size_t>(std::max(1, text.num_kv_heads / ranks));
  return 2 * element * local_heads * static_cast<std::size_t>(text.num_layers) *
         static_cast<std::size_t>(text.head_dim) * static_cast<std::size_t>(block_size);
}

}  // namespace qwenbench::backend
