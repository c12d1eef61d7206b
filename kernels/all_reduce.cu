#include "kernels/all_reduce.h"
#include "kernels/all_reduce_exchange.cuh"

namespace qwenbench::kernels {
namespace {

constexpr int kThreads = 512;

/// The vector at `at` of count values; the last may be short.
__device__ __forceinline__ uint4 load_values(const __nv_bfloat16* values, long long at, long long count) {
  if (8 * (at + 1) <= count) return reinterpret_cast<const uint4*>(values)[at];
  Bf16x8 part = {};
  for (int i = 0; i < count % 8; ++i) reinterpret_cast<__nv_bfloat16*>(&part)[i] = values[8 * at + i];
  return *reinterpret_cast<const uint4*>(&part);
}

__device__ __forceinline__ void store_values(__nv_bfloat16* values, long long at, long long count, const float* sum) {
  if (8 * (at + 1) <= count) {
    reinterpret_cast<Bf16x8*>(values)[at] = pack(sum);
  } else {
    for (int i = 0; i < count % 8; ++i) values[8 * at + i] = __float2bfloat16_rn(sum[i]);
  }
}

template <int kRanks>
__global__ void __launch_bounds__(kThreads)
    all_reduce_kernel(const __grid_constant__ PeerExchange x, __nv_bfloat16* values, long long count) {
  wait_for_previous();
  if (x.overlap_next) let_next_start();
  const Stopwatch watch;
  const Turn turn = take_turn(x);
  const long long vectors = (count + 7) / 8, stride = static_cast<long long>(gridDim.x) * kThreads;
  long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  uint4 mine = {}, next = {};
  if (at < vectors) {
    mine = load_values(values, at, count);
    send_to_all(x, turn, at, mine);
  }
  end_turn(x, turn, vectors * static_cast<long long>(sizeof(uint4)));
  for (; at < vectors; at += stride, mine = next) {
    if (at + stride < vectors) {  // under way while this one is waited for
      next = load_values(values, at + stride, count);
      send_to_all(x, turn, at + stride, next);
    }
    float sum[8];
    sum_over_ranks<kRanks>(x, turn, at, mine, sum);
    store_values(values, at, count, sum);
  }
  watch.stop(x);
}

/// A value of T travels as one Unit.
__device__ __forceinline__ uint4 to_unit(const uint4& value) { return value; }
__device__ __forceinline__ unsigned to_unit(unsigned short value) { return value; }
__device__ __forceinline__ void from_unit(const uint4& unit, uint4& value) { value = unit; }
__device__ __forceinline__ void from_unit(unsigned unit, unsigned short& value) {
  value = static_cast<unsigned short>(unit);
}

/// `mine` holds `count` values in rows of `width`; they go to columns [rank * width ...) of out's rows.
template <class T>
__global__ void __launch_bounds__(kThreads)
    all_gather_kernel(const __grid_constant__ PeerExchange x, const T* mine, long long first, long long count,
                      long long width, T* out) {
  using Unit = decltype(to_unit(T{}));
  wait_for_previous();
  if (x.overlap_next) let_next_start();
  const Stopwatch watch;
  const Turn turn = take_turn(x);
  const long long stride = static_cast<long long>(gridDim.x) * kThreads;
  const long long begin = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  const auto place = [&](int rank, long long at) -> T& {
    const long long row = (first + at) / width, column = (first + at) % width;
    return out[(row * x.ranks + rank) * width + column];
  };
  for (long long at = begin; at < count; at += stride) {
    const T value = mine[first + at];
    send_to_all(x, turn, at, to_unit(value));
    place(x.rank, at) = value;
  }
  end_turn(x, turn, (count * static_cast<long long>(sizeof(Unit)) + 15) / 16 * 16);
  for (int from = 0; from < x.ranks; ++from) {
    if (from == x.rank) continue;
    for (long long at = begin; at < count; at += stride) from_unit(receive<Unit>(x, turn, from, at), place(from, at));
  }
  watch.stop(x);
}

template <class T>
cudaError_t gather(const PeerExchange& x, const void* mine, int rows, std::size_t row_bytes, void* out,
                   cudaStream_t stream) {
  const long long width = static_cast<long long>(row_bytes / sizeof(T)), count = rows * width;
  const long long fits = x.slot_bytes / static_cast<long long>(sizeof(decltype(to_unit(T{}))));
  for (long long first = 0; first < count; first += fits) {
    const long long part = count - first < fits ? count - first : fits;
    const int blocks = exchange_blocks(x, (part + kThreads - 1) / kThreads, kThreads);
    const cudaError_t error = launch(all_gather_kernel<T>, dim3(blocks), dim3(kThreads), 0, stream, x,
                                     static_cast<const T*>(mine), first, part, width, static_cast<T*>(out));
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

}  // namespace

cudaError_t all_reduce(const PeerExchange& x, __nv_bfloat16* values, long long count, cudaStream_t stream) {
  if (!is_aligned(values)) return cudaErrorMisalignedAddress;
  const auto kernel = x.ranks == 2 ? all_reduce_kernel<2> : all_reduce_kernel<kMaxRanks>;
  const long long fits = x.slot_bytes / 2;
  for (long long first = 0; first < count; first += fits) {
    const long long part = count - first < fits ? count - first : fits;
    const int blocks = exchange_blocks(x, (part + 8 * kThreads - 1) / (8 * kThreads), kThreads);
    const cudaError_t error = launch(kernel, dim3(blocks), dim3(kThreads), 0, stream, x, values + first, part);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t all_gather(const PeerExchange& x, const void* mine, int rows, std::size_t row_bytes, void* out,
                       cudaStream_t stream) {
  if (row_bytes % 2 != 0) return cudaErrorInvalidValue;
  if (row_bytes % 16 == 0 && is_aligned(mine) && is_aligned(out))
    return gather<uint4>(x, mine, rows, row_bytes, out, stream);
  return gather<unsigned short>(x, mine, rows, row_bytes, out, stream);
}

}  // namespace qwenbench::kernels
