// From logits to what is kept of them, without copying 150,000 values a row to the host. A rank sees its share of the
// vocabulary; the caller combines the ranks' results.
#pragma once

#include <cuda_runtime_api.h>

namespace qwenbench::kernels {

/// The largest logit of a slice; id -1 where none is a finite number.
struct TopLogit {
  float value;
  int id;  // the lowest among equals
};

/// Slices of a row that are searched apart, so that few rows fill the device.
constexpr int kTopLogitSlices = 16;

/// logits [rows, width] fp32 of ids first_id ... -> out [rows, kTopLogitSlices].
cudaError_t top_logits(const float* logits, int rows, int width, int first_id, TopLogit* out, cudaStream_t stream);

/// Sums over one rank's slice of a row of two models' logits, x of the reference and y of the variant.
struct LogitSums {
  double sum_x;     // sum of exp(x - max_x)
  double sum_y;     // sum of exp(y - max_y)
  double weighted;  // sum of exp(x - max_x) (x - y)
  float max_x, max_y;
  int top_x, top_y;          // lowest ids of the largest
  float target_x, target_y;  // of the target's id, where the slice holds it
  int has_target;
  int finite;  // 0: a logit is NaN or infinite
};

/// x, y [rows, width] fp32 of ids first_id ...; targets [rows] ids; out [rows].
cudaError_t compare_logits(const float* x, const float* y, const int* targets, int rows, int width, int first_id,
                           LogitSums* out, cudaStream_t stream);

}  // namespace qwenbench::kernels
