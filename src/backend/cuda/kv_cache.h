// One rank's paged KV cache in GPU memory, and the CUDA graphs that were captured over it.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/device_memory.h"
#include "kernels/kv_cache_layout.h"

namespace qwenbench::backend::cuda {

/// A captured decode step. `generation` says over which buffers it was captured.
class Graph {
 public:
  Graph(cudaGraph_t captured, std::uint64_t generation);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  std::uint64_t generation() const { return generation_; }
  /// What the first launch would do besides launching.
  void upload(cudaStream_t stream) const { QWENBENCH_CUDA(cudaGraphUpload(executable_, stream)); }
  void launch(cudaStream_t stream) const { QWENBENCH_CUDA(cudaGraphLaunch(executable_, stream)); }

 private:
  cudaGraphExec_t executable_ = nullptr;
  std::uint64_t generation_;
};

class CudaKvCache : public KvCache {
 public:
  /// Throws InputError where scales are missing or the dtype is not one of a GPU's; DeviceError where memory is short.
  CudaKvCache(const graph::Plan& plan, int rank, int device, const KvCacheOptions& options);
  ~CudaKvCache() override;

  std::vector<std::byte> stored(int layer, std::int64_t slot, int local_head, bool key) const override;

  /// With the scales by which storing divides, or reading multiplies (the same but for a deliberate fault).
  enum class Side { kWrite, kRead };
  kernels::KvLayer layer(int index, Side side) const;
  /// Of FP8 attention: device [kv_heads], null where it is off; and the layer's scale of the weights.
  const float* q_scale(int layer) const;
  float prob_scale(int layer) const { return prob_scales_[static_cast<std::size_t>(layer)]; }
  int block_size() const { return block_size_; }
  int num_blocks() const { return num_blocks_; }
  bool is_fp8() const { return dtype_ == kernels::KvDtype::kFp8E4M3; }

  std::map<int, std::unique_ptr<Graph>> graphs;  // by batch size
  std::set<int> graphs_met;                      // batch sizes that ran once

 private:
  void set_fp8_attention(const graph::Plan& plan, int rank, const std::vector<model::LayerKvScales>& layers);
  std::vector<float> local_scales(const graph::Plan& plan, int rank,
                                  const std::vector<model::LayerKvScales>& layers) const;
  std::size_t head_bytes() const { return static_cast<std::size_t>(block_size_) * head_dim_ * element_; }
  std::size_t layer_bytes() const { return head_bytes() * static_cast<std::size_t>(heads_) * num_blocks_; }

  int device_;
  kernels::KvDtype dtype_;
  std::size_t element_;
  int layers_, heads_, head_dim_, block_size_, num_blocks_;
  DeviceArray<std::uint8_t> keys_, values_;
  DeviceArray<float> scales_;    // [write, read][layer][k, v][head]
  DeviceArray<float> q_scales_;  // [layer][head]; empty: no FP8 attention
  std::vector<float> prob_scales_;
};

}  // namespace qwenbench::backend::cuda
