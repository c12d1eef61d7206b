#include "kernels/fp8_block_linear.h"
#include "kernels/linear_stream.cuh"

namespace qwenbench::kernels {
namespace {

/// Two e4m3 codes (in the upper byte of each half) to bf16: the bits move into place, the product corrects the
/// exponent's bias by 2^120. Exact, subnormals too; NaN becomes 480.
__device__ __forceinline__ std::uint32_t e4m3_pair(std::uint32_t upper) {
  const std::uint32_t bits = ((upper >> 4) & 0x07F007F0u) | (upper & 0x80008000u);
  return bf16x2_bits(__hmul2(bits_bf16x2(bits), bits_bf16x2(0x7B807B80u)));
}

/// Row-major codes as they are: a lane's 16 bytes are columns 16t..16t+15 of 64, four MMAs' worth.
template <int kCtas>
struct Fp8Format {
  using Weights = Fp8BlockWeights;
  static constexpr int kRowTiles = 2;
  static constexpr int kStepK = 64;
  static constexpr int kSlots = 2;
  static constexpr int kCtasPerSm = kCtas;
  static constexpr int kUnitBytes = 32 * stream::kUnitK;

  __device__ static __forceinline__ int column(int part, int t) { return t * 16 + part * 8; }

  __device__ static __forceinline__ void fetch(const Weights& w, const stream::Shape& shape, int row_block, int unit,
                                               int step, unsigned char* to, int lane) {
    const std::uint32_t shared = shared_address(to) + step * 2048 + lane * 16;
    const int c = unit * stream::kUnitK + step * kStepK + lane % 4 * 16;
    const bool inside = c < shape.k;
#pragma unroll
    for (int chunk = 0; chunk < 4; ++chunk) {
      // Rows past n are read from the last, and not stored.
      const int row = min(row_block * 32 + chunk * 8 + lane / 4, shape.n - 1);
      copy16_alone(shared + chunk * 512, w.codes + static_cast<std::size_t>(row) * shape.k + (inside ? c : 0), inside);
    }
  }

  template <int kTokenTiles>
  struct State {
    float scale;
    float sum[kRowTiles][kTokenTiles][4];

    __device__ __forceinline__ void begin(const Weights& w, const stream::Shape& shape, int row_block, int unit) {
      const int row = min(row_block * 32, shape.n - 1);
      scale = __ldg(w.scales + static_cast<std::size_t>(row / 128) * shape.units + unit);
#pragma unroll
      for (int rt = 0; rt < kRowTiles; ++rt)
#pragma unroll
        for (int tt = 0; tt < kTokenTiles; ++tt)
#pragma unroll
          for (int i = 0; i < 4; ++i) sum[rt][tt][i] = 0.f;
    }

    __device__ __forceinline__ void end(float (&acc)[kRowTiles][kTokenTiles][4]) {
#pragma unroll
      for (int rt = 0; rt < kRowTiles; ++rt)
#pragma unroll
        for (int tt = 0; tt < kTokenTiles; ++tt)
#pragma unroll
          for (int i = 0; i < 4; ++i) acc[rt][tt][i] = fmaf(scale, sum[rt][tt][i], acc[rt][tt][i]);
    }

    __device__ __forceinline__ void step(const unsigned char* unit, int step, int lane,
                                         const std::uint32_t (&b)[kTokenTiles][2][4],
                                         float (&)[kRowTiles][kTokenTiles][4]) {
      const auto* chunks = reinterpret_cast<const uint4*>(unit + step * 2048 + lane * 16);
#pragma unroll
      for (int rt = 0; rt < kRowTiles; ++rt) {
        const uint4 low = chunks[rt * 64], high = chunks[rt * 64 + 32];
        const std::uint32_t words[4][2] = {{low.x, high.x}, {low.y, high.y}, {low.z, high.z}, {low.w, high.w}};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          std::uint32_t a[4];
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            a[h] = e4m3_pair(__byte_perm(words[j][h], 0, 0x1404));
            a[2 + h] = e4m3_pair(__byte_perm(words[j][h], 0, 0x3424));
          }
#pragma unroll
          for (int tt = 0; tt < kTokenTiles; ++tt)
            mma_bf16(sum[rt][tt], a, b[tt][j / 2][j % 2 * 2], b[tt][j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  };
};

/// One thread per 16 codes.
__global__ void dequantize(Fp8BlockWeights w, int units, __nv_bfloat16* __restrict__ out) {
  const int column = (blockIdx.x * blockDim.x + threadIdx.x) * 16;
  if (column >= w.k) return;
  for (int row = blockIdx.y; row < w.n; row += gridDim.y) {
    const uint4 codes = *reinterpret_cast<const uint4*>(w.codes + static_cast<std::size_t>(row) * w.k + column);
    const float scale = w.scales[static_cast<std::size_t>(row / 128) * units + column / 128];
    const std::uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
    std::uint32_t values[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float2 v =
          __bfloat1622float2(bits_bf16x2(e4m3_pair(__byte_perm(words[i / 2], 0, i % 2 == 0 ? 0x1404 : 0x3424))));
      values[i] = bf16x2_bits(__floats2bfloat162_rn(v.x * scale, v.y * scale));
    }
    auto* to = reinterpret_cast<uint4*>(out + static_cast<std::size_t>(row) * w.k + column);
    to[0] = make_uint4(values[0], values[1], values[2], values[3]);
    to[1] = make_uint4(values[4], values[5], values[6], values[7]);
  }
}

bool valid(const Fp8BlockWeights& w) { return w.n > 0 && w.k > 0 && w.k % 16 == 0; }

}  // namespace

std::size_t fp8_block_workspace_bytes(int m) {
  return stream::kCounterBytes + static_cast<std::size_t>(2 * stream::kMaxGrid) * 128 * m * sizeof(float);
}

cudaError_t fp8_block_linear(const __nv_bfloat16* x, const Fp8BlockWeights& w, __nv_bfloat16* y, int m, void* workspace,
                             cudaStream_t stream, bool programmatic) {
  if (!valid(w) || m < 1 || m > kFp8MaxTokens) return cudaErrorInvalidValue;
  const auto run = [&](auto* launch) { return launch(w, x, y, w.n, w.k, m, workspace, programmatic, stream); };
  if (m <= 8) return run(&stream::launch<Fp8Format<2>, 1, 4, __nv_bfloat16>);
  if (m <= 16) return run(&stream::launch<Fp8Format<2>, 2, 2, __nv_bfloat16>);
  if (m <= 32) return run(&stream::launch<Fp8Format<1>, 4, 2, __nv_bfloat16>);
  return run(&stream::launch<Fp8Format<1>, 8, 2, __nv_bfloat16>);
}

cudaError_t fp8_block_dequantize(const Fp8BlockWeights& w, __nv_bfloat16* out, cudaStream_t stream) {
  if (!valid(w)) return cudaErrorInvalidValue;
  const int rows = w.n < 65535 ? w.n : 65535;
  dequantize<<<dim3(static_cast<unsigned>((w.k / 16 + 127) / 128), static_cast<unsigned>(rows)), 128, 0, stream>>>(
      w, (w.k + 127) / 128, out);
  return cudaGetLastError();
}

}  // namespace qwenbench::kernels
