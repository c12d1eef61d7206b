// A thread block a multiprocessor. One warp streams its share of all products' weights through a ring in shared memory,
// as far ahead as there is room; one for each 8 tokens brings the tokens' columns of each stage, as soon as the product
// before has written them (Inputs); one adds them up for the zero points; four warps a stage multiply
// (w4_multiply.cuh), kSplit sets of them in turn; four or eight finish sums.
//
// Columns of a tile may be spread over thread blocks, which share the work of adding up their parts, in a fixed order,
// and of using the sum at once (SumFinisher). A product's input is complete when all row blocks of the product before
// are done. A norm needs the whole row, but it is a factor: its input goes on without, and the products' results are
// multiplied by it.
#include <algorithm>

#include "kernels/decode_chain_stream.cuh"
#include "kernels/decode_chain_sums.cuh"
#include "kernels/hopper.cuh"
#include "kernels/launch.h"
#include "kernels/wgmma_launch.h"

namespace qwenbench::kernels {
namespace chain {
namespace {

template <class L>
__global__ void __launch_bounds__(L::kThreads, 1) decode_chain_kernel(const __grid_constant__ Call call) {
  if constexpr (!L::kShiftsRegisters || QWENBENCH_WARPGROUP_PRODUCTS) {
    extern __shared__ __align__(128) unsigned char memory[];
    const Shared<L> shared(memory, call);
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0) shared.init_barriers(call.stages);
    __syncthreads();
    if (warp < L::kMultipliers) {
      if constexpr (L::kShiftsRegisters) device::take_registers<L::kMultiplierRegisters>();
      multiply_stages(call, shared);
    } else if (warp < L::kFirstStreamer) {
      SumFinisher<L>(call, shared, warp - L::kMultipliers).run();
    } else {
      if constexpr (L::kShiftsRegisters) device::give_registers<L::kStreamerRegisters>();
      if (warp == L::kAdder)
        add_tokens(call, shared);
      else if (warp < L::kAdder)
        TokenWarp<L>(call, shared, warp - L::kFirstStreamer).run();
      else
        bring_weights(call, shared);
    }
  }
}

// ---- the host's side ----

int groups_per_unit(const W4Weights& w) { return w.group_size < kUnitK ? 4 : 1; }

Work work_of(const W4Weights& w, const __nv_bfloat16* x, int grid, int slice_rows) {
  Work work{};
  if (w.n == 0) return work;
  work.codes = static_cast<const unsigned char*>(w.codes);
  work.groups = static_cast<const unsigned char*>(w.groups);
  work.x = x;
  work.n = w.n;
  work.k = w.k;
  work.row_blocks = (w.n + kW4RowBlock - 1) / kW4RowBlock;
  work.slices = (w.n + slice_rows - 1) / slice_rows;
  work.units = (w.k + kUnitK - 1) / kUnitK;
  const int tiles = (w.n + kTileRows - 1) / kTileRows;
  work.whole = tiles / grid;
  work.shared = tiles % grid * work.units;
  work.blocks = std::max(1, std::min(grid, work.shared));
  return work;
}

/// Parts of the workspace, one behind the other.
struct Workspace {
  std::size_t counters = 0, squares, inputs, parts, bytes;
  explicit Workspace(const DecodeChain& c) {
    const auto aligned = [](std::size_t n) { return (n + 255) / 256 * 256; };
    squares = aligned(sizeof(Counters));
    constexpr int kSmallestSlice = 32;
    inputs = squares + aligned(sizeof(float) * 2 * ((c.down.n + kSmallestSlice - 1) / kSmallestSlice) * kTokens);
    parts = inputs + aligned(sizeof(__nv_bfloat16) * 2 * Inputs::elements(c.down.n, c.down.k));
    bytes = parts + 2 * kPlaces * kTileRows * kTokens * sizeof(float);
  }
};

template <class L>
Call call_of(const DecodeChain& c, int grid) {
  const Workspace at(c);
  auto* workspace = static_cast<unsigned char*>(c.workspace);
  Call call{};
  call.m = c.m;
  call.items = (c.m + L::kItemTokens - 1) / L::kItemTokens;
  call.hidden = c.down.n;
  call.intermediate = c.down.k;
  call.norm[0] = c.middle;
  call.norm[1] = c.next;
  call.residual = c.residual;
  call.qkv_out = c.qkv_out;
  call.counters = reinterpret_cast<Counters*>(workspace);
  call.squares = reinterpret_cast<float*>(workspace + at.squares);
  call.inputs.scaled[0] = reinterpret_cast<__nv_bfloat16*>(workspace + at.inputs);
  call.inputs.mlp = call.inputs.scaled[0] + static_cast<long long>(kTokens) * c.down.n;
  call.inputs.scaled[1] = call.inputs.mlp + static_cast<long long>(kTokens) * c.down.k;
  call.inputs.set = Inputs::elements(c.down.n, c.down.k);
  call.parts = reinterpret_cast<uint4*>(workspace + at.parts);
  call.peers = c.peers;
  call.products = c.qkv.n > 0 ? kProducts : kProducts - 1;
  call.work[kO] = work_of(c.o, c.attended, grid, L::kSliceRows);
  call.work[kGateUp] = work_of(c.gate_up, call.inputs.scaled[0], grid, L::kSliceRows);
  call.work[kDown] = work_of(c.down, call.inputs.mlp, grid, L::kSliceRows);
  call.work[kQkv] = work_of(c.qkv, call.inputs.scaled[1], grid, L::kSliceRows);
  return call;
}

constexpr int kInFlight = 3, kInFlightEarly = 2;

template <class L>
cudaError_t start(const DecodeChain& c, cudaStream_t stream) {
  int device = 0, multiprocessors = 0, budget = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&budget, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  // All thread blocks must be there at the same time: one a multiprocessor.
  const int grid = std::min(multiprocessors, kMaxGrid);
  Call call = call_of<L>(c, grid);
  call.stages = L::stages(c.m, budget);
  if (call.stages < 2) return cudaErrorInvalidConfiguration;
  call.in_flight = std::min(kInFlight, call.stages - 1);
  call.in_flight_early = std::min(kInFlightEarly, call.stages - 1);
  const int bytes = L::shared_bytes(c.m, call.stages);
  const auto kernel = decode_chain_kernel<L>;
  error = allow_shared_memory(kernel, bytes);
  if (error != cudaSuccess) return error;
  return launch(kernel, dim3(grid), dim3(L::kThreads), bytes, stream, call);
}

}  // namespace
}  // namespace chain

std::size_t decode_chain_workspace_bytes(const DecodeChain& c) { return chain::Workspace(c).bytes; }

bool decode_chain_supports(const DecodeChain& c) {
  const auto fits = [&](const W4Weights& w) {
    return w.n > 0 && w.k > 0 && w.n % 16 == 0 && w.k % 16 == 0 &&
           chain::groups_per_unit(w) == chain::groups_per_unit(c.o);
  };
  if (!fits(c.o) || !fits(c.gate_up) || !fits(c.down) || (c.qkv.n > 0 && !fits(c.qkv))) return false;
  const long long quad_bytes = 16LL * kChainMaxTokens * ((c.down.n + 63) / 64) * 16;
  return c.o.n == c.down.n && c.gate_up.k == c.down.n && c.gate_up.n == 2 * c.down.k && c.down.k % 16 == 0 &&
         (c.qkv.n == 0 || c.qkv.k == c.down.n) &&
         (c.peers.ranks == 1 || (c.peers.sharing == 1 && quad_bytes <= kQuadBytes));
}

cudaError_t decode_chain(const DecodeChain& c, cudaStream_t stream) {
  using chain::Layout, chain::start;
  if (!decode_chain_supports(c) || c.m < 1 || c.m > kChainMaxTokens) return cudaErrorInvalidValue;
  const bool small_groups = chain::groups_per_unit(c.o) == 4;
  if (c.m == 1) return small_groups ? start<Layout<4, 1, true>>(c, stream) : start<Layout<1, 1, true>>(c, stream);
  if (c.m <= 8) return small_groups ? start<Layout<4, 1>>(c, stream) : start<Layout<1, 1>>(c, stream);
  using Wide = Layout<1, 2, false, 32>;
  if ((c.thread_limit == 0 || c.thread_limit >= Wide::kThreads) && has_wgmma_code(chain::decode_chain_kernel<Wide>))
    return small_groups ? start<Layout<4, 2, false, 32>>(c, stream) : start<Wide>(c, stream);
  return small_groups ? start<Layout<4, 2>>(c, stream) : start<Layout<1, 2>>(c, stream);
}

}  // namespace qwenbench::kernels
