// Prefill attention on the matrix units of sm_90; prefill_attention() chooses it.
#pragma once

#include "kernels/prefill_pass.cuh"

namespace qwenbench::kernels {

/// Whether the current device can, and the code was compiled for it.
bool prefill_attention_wgmma_runs();

/// After an FP8 cache was expanded.
cudaError_t prefill_attention_wgmma(const device::Pass& pass, cudaStream_t stream);

}  // namespace qwenbench::kernels
