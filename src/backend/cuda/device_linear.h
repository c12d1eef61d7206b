// One rank's share of a Linear in GPU memory, and how it is loaded.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <memory>
#include <string>

#include "backend/cuda/device_memory.h"
#include "backend/linear_form.h"
#include "base/thread_pool.h"
#include "graph/plan.h"
#include "kernels/fp8_block_linear.h"
#include "kernels/w4_linear.h"
#include "model/weights.h"

namespace qwenbench::backend::cuda {

/// In the form that backend::gpu_form() says; bf16 is made of any other by dequantizing it.
struct DeviceLinear {
  WeightForm form = WeightForm::kDense;
  int n = 0, k = 0;
  DeviceArray<__nv_bfloat16> dense;  // [n, k]
  DeviceArray<std::byte> codes, groups;
  kernels::W4Weights int4{};
  kernels::Fp8BlockWeights fp8{};
  DeviceArray<__nv_bfloat16> bias;  // [n], or empty

  std::size_t bytes() const { return dense.bytes() + codes.bytes() + groups.bytes() + bias.bytes(); }
};

/// Loads Linears through pinned or pageable staging memory, on a stream of its own. One rank, one thread.
class LinearLoader {
 public:
  LinearLoader(const model::WeightSource& source, int rank, int ranks, bool pin_memory, ThreadPool& pool);
  ~LinearLoader();

  DeviceLinear load(const graph::LinearSpec& spec);

  /// A tensor of floating point as bf16, rows [row_begin, row_begin + rows) of it.
  DeviceArray<__nv_bfloat16> load_rows(const model::TensorView& view, std::int64_t row_begin, std::int64_t rows);

  /// Until everything that was loaded has arrived.
  void finish();

 private:
  struct Staging;
  struct Window;
  void load_dense(DeviceLinear& linear, const model::LinearSource& source, const Window& window, int row_offset);
  void load_int4(DeviceLinear& linear, const model::LinearSource& source, const Window& window, int row_offset);
  void load_fp8(DeviceLinear& linear, const model::LinearSource& source, const Window& window, int row_offset);

  const model::WeightSource& source_;
  int rank_, ranks_;
  ThreadPool& pool_;
  Stream stream_;
  std::unique_ptr<Staging> staging_;
};

}  // namespace qwenbench::backend::cuda
