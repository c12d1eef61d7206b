#include "kernels/bf16_linear.h"
#include "kernels/linear_stream.cuh"

namespace qwenbench::kernels {
namespace {

/// Row-major weights as they are: a lane's 16 bytes are columns 8t..8t+7 of row g or g+8, two MMAs' worth.
struct Bf16Format {
  struct Weights {
    const __nv_bfloat16* w;
  };
  static constexpr int kRowTiles = 1;
  static constexpr int kStepK = 64;
  static constexpr int kSlots = 2;
  static constexpr int kCtasPerSm = 2;
  static constexpr int kUnitBytes = 16 * stream::kUnitK * 2;

  __device__ static __forceinline__ int column(int part, int t) { return part * 32 + t * 8; }

  __device__ static __forceinline__ void fetch(const Weights& w, const stream::Shape& shape, int row_block, int unit,
                                               int step, unsigned char* to, int lane) {
    const std::uint32_t shared = shared_address(to) + step * 2048 + lane * 16;
#pragma unroll
    for (int part = 0; part < 2; ++part)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // Rows past n are read from the last, and not stored.
        const int row = min(row_block * 16 + h * 8 + lane / 4, shape.n - 1);
        const int c = unit * stream::kUnitK + step * kStepK + column(part, lane % 4);
        const bool inside = c < shape.k;
        copy16_alone(shared + (part * 2 + h) * 512, w.w + static_cast<std::size_t>(row) * shape.k + (inside ? c : 0),
                     inside);
      }
  }

  template <int kTokenTiles>
  struct State {
    __device__ __forceinline__ void begin(const Weights&, const stream::Shape&, int, int) {}
    __device__ __forceinline__ void end(float (&)[1][kTokenTiles][4]) {}

    __device__ __forceinline__ void step(const unsigned char* unit, int step, int lane,
                                         const std::uint32_t (&b)[kTokenTiles][2][4], float (&acc)[1][kTokenTiles][4]) {
      const auto* chunks = reinterpret_cast<const uint4*>(unit + step * 2048 + lane * 16);
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const uint4 low = chunks[part * 64], high = chunks[part * 64 + 32];
        const std::uint32_t a[2][4] = {{low.x, high.x, low.y, high.y}, {low.z, high.z, low.w, high.w}};
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
          for (int tt = 0; tt < kTokenTiles; ++tt)
            mma_bf16(acc[0][tt], a[j], b[tt][part][2 * j], b[tt][part][2 * j + 1]);
      }
    }
  };
};

template <class Out>
cudaError_t choose(const __nv_bfloat16* x, const __nv_bfloat16* w, Out* y, int m, int n, int k, void* workspace,
                   cudaStream_t stream, bool programmatic) {
  if (m < 1 || m > kBf16MaxTokens || n < 1 || k < 8 || k % 8 != 0) return cudaErrorInvalidValue;
  const Bf16Format::Weights weights{w};
  // Few rows a tile where there are few tiles: the counters suffice for 16384 row blocks of a warp.
  if (m <= 8) return stream::launch<Bf16Format, 1, 1>(weights, x, y, n, k, m, workspace, programmatic, stream);
  return stream::launch<Bf16Format, 2, 1>(weights, x, y, n, k, m, workspace, programmatic, stream);
}

}  // namespace

std::size_t bf16_linear_workspace_bytes(int m) {
  return stream::kCounterBytes + static_cast<std::size_t>(2 * stream::kMaxGrid) * 128 * m * sizeof(float);
}

cudaError_t bf16_linear(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* y, int m, int n, int k,
                        void* workspace, cudaStream_t stream, bool programmatic) {
  return choose(x, w, y, m, n, k, workspace, stream, programmatic);
}

cudaError_t bf16_linear(const __nv_bfloat16* x, const __nv_bfloat16* w, float* y, int m, int n, int k, void* workspace,
                        cudaStream_t stream, bool programmatic) {
  return choose(x, w, y, m, n, k, workspace, stream, programmatic);
}

}  // namespace qwenbench::kernels
