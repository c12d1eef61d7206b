#include "kernels/all_reduce_add_norm.h"
#include "kernels/all_reduce_exchange.cuh"
#include "kernels/norm_row.cuh"

namespace qwenbench::kernels {
namespace {

constexpr int kMaxThreads = 1024;

/// Four values of an fp32 vector, as they travel.
__device__ __forceinline__ uint4 as_unit(const float* values) {
  return make_uint4(__float_as_uint(values[0]), __float_as_uint(values[1]), __float_as_uint(values[2]),
                    __float_as_uint(values[3]));
}
__device__ __forceinline__ void from_unit(const uint4& unit, float* values) {
  values[0] = __uint_as_float(unit.x);
  values[1] = __uint_as_float(unit.y);
  values[2] = __uint_as_float(unit.z);
  values[3] = __uint_as_float(unit.w);
}

/// A row in a slot of the exchange takes as many units as it has vectors; two-shot twice as many: what comes back is
/// the residual, fp32, the first halves of all vectors before the second ones.
__host__ __device__ constexpr int units_a_vector(AllReduceShape shape) {
  return shape == AllReduceShape::kTwoShot ? 2 : 1;
}

/// A block's share of the rows; a row is one group in the one-shot exchange, `ranks` rows are one in the two-shot.
template <AllReduceShape kShape, int kRanks, int kVectors>
class RowExchange {
 public:
  __device__ RowExchange(const PeerExchange& x, const AddNorm& a, float* shared)
      : x_(x), a_(a), vectors_(a.width / 8), pitch_(vectors_ * units_a_vector(kShape)), shared_(shared) {
    load_norm_weight(a_, weight_);
  }

  __device__ void take_turn() { turn_ = kernels::take_turn(x_); }
  __device__ void end_turn() { kernels::end_turn(x_, turn_, a_.rows * pitch_ * 16LL); }

  /// Sends this rank's part of a row to all, or to one rank; `mine` keeps it.
  __device__ void send_to_all(long long row, uint4 (&mine)[kVectors]) {
    load(row, mine);
    for_my_vectors<kVectors>(
        vectors_, [&](int v, int column) { kernels::send_to_all(x_, turn_, row * pitch_ + column, mine[v]); });
  }
  __device__ void send(long long row, int to) {
    for_my_vectors<kVectors>(
        vectors_, [&](int, int column) { kernels::send(x_, turn_, to, row * pitch_ + column, part(row, column)); });
  }
  __device__ void load(long long row, uint4 (&mine)[kVectors]) {
    for_my_vectors<kVectors>(vectors_, [&](int v, int column) { mine[v] = part(row, column); });
  }

  /// The new residual of a row out of all ranks' parts; two-shot: sent on to the others.
  __device__ void sum_row(long long row, const uint4 (&mine)[kVectors]) {
    const int feature = feature_of(a_, row);
    F32x8 before[kVectors];
    for_my_vectors<kVectors>(vectors_, [&](int v, int column) {  // read while the parts are on their way
      before[v] = load_residual(a_, row * vectors_ + column);
    });
    for_my_vectors<kVectors>(vectors_, [&](int v, int column) {
      const long long unit = row * pitch_ + column;
      float sum[8];
      sum_over_ranks<kRanks>(x_, turn_, unit, mine[v], sum);
#pragma unroll
      for (int i = 0; i < 8; ++i) values_[v][i] = before[v].values[i] + sum[i];
      add_extras(a_, feature, column, values_[v]);
      if (kShape == AllReduceShape::kTwoShot) {
        kernels::send_to_all(x_, turn_, unit, as_unit(values_[v]));
        kernels::send_to_all(x_, turn_, unit + vectors_, as_unit(values_[v] + 4));
      }
      store_residual(a_, row * vectors_ + column, values_[v]);
    });
    if (a_.out) norm_row<kVectors>(a_, values_, weight_, row, shared_);
  }

  /// The new residual of a row that `owner` has summed.
  __device__ void receive_row(long long row, int owner) {
    for_my_vectors<kVectors>(vectors_, [&](int v, int column) {
      const long long unit = row * pitch_ + column;
      from_unit(receive<uint4>(x_, turn_, owner, unit), values_[v]);
      from_unit(receive<uint4>(x_, turn_, owner, unit + vectors_), values_[v] + 4);
      store_residual(a_, row * vectors_ + column, values_[v]);
    });
    if (a_.out) norm_row<kVectors>(a_, values_, weight_, row, shared_);
  }

 private:
  __device__ const uint4& part(long long row, int column) const {
    return reinterpret_cast<const uint4*>(a_.partial)[row * vectors_ + column];
  }

  const PeerExchange& x_;
  const AddNorm& a_;
  const int vectors_;
  const long long pitch_;  // units from row to row of a slot
  float* const shared_;
  Turn turn_;
  Bf16x8 weight_[kVectors];
  float values_[kVectors][8];
};

template <int kRanks, int kVectors>
__global__ void __launch_bounds__(kMaxThreads)
    one_shot_kernel(const __grid_constant__ PeerExchange x, const __grid_constant__ AddNorm a) {
  __shared__ float shared[33];
  RowExchange<AllReduceShape::kOneShot, kRanks, kVectors> exchange(x, a, shared);
  wait_for_previous();
  if (x.overlap_next) let_next_start();
  const Stopwatch watch;
  exchange.take_turn();
  uint4 mine[kVectors], next[kVectors];
  const int stride = gridDim.x;
  int row = blockIdx.x;
  exchange.send_to_all(row, mine);
  exchange.end_turn();
  for (; row < a.rows; row += stride) {
    if (row + stride < a.rows) exchange.send_to_all(row + stride, next);  // under way while this one is waited for
    exchange.sum_row(row, mine);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) mine[v] = next[v];
  }
  watch.stop(x);
}

/// Row `row` is summed by rank row % ranks.
template <int kVectors>
__global__ void __launch_bounds__(kMaxThreads)
    two_shot_kernel(const __grid_constant__ PeerExchange x, const __grid_constant__ AddNorm a) {
  __shared__ float shared[33];
  RowExchange<AllReduceShape::kTwoShot, kMaxRanks, kVectors> exchange(x, a, shared);
  wait_for_previous();
  if (x.overlap_next) let_next_start();
  const Stopwatch watch;
  exchange.take_turn();
  const auto send_group = [&](long long first) {
    for (int owner = 0; owner < x.ranks; ++owner) {
      if (owner != x.rank && first + owner < a.rows) exchange.send(first + owner, owner);
    }
  };
  const long long stride = static_cast<long long>(gridDim.x) * x.ranks;
  long long first = static_cast<long long>(blockIdx.x) * x.ranks;
  send_group(first);
  exchange.end_turn();
  for (; first < a.rows; first += stride) {
    send_group(first + stride);
    uint4 mine[kVectors];
    if (first + x.rank < a.rows) {
      exchange.load(first + x.rank, mine);
      exchange.sum_row(first + x.rank, mine);
    }
    for (int owner = 0; owner < x.ranks; ++owner) {
      if (owner != x.rank && first + owner < a.rows) exchange.receive_row(first + owner, owner);
    }
  }
  watch.stop(x);
}

using Kernel = void (*)(PeerExchange, AddNorm);

Kernel kernel_for(int ranks, int per_thread, AllReduceShape shape) {
  if (shape == AllReduceShape::kTwoShot)
    return per_thread == 1 ? two_shot_kernel<1> : per_thread == 2 ? two_shot_kernel<2> : two_shot_kernel<4>;
  if (ranks == 2)
    return per_thread == 1 ? one_shot_kernel<2, 1> : per_thread == 2 ? one_shot_kernel<2, 2> : one_shot_kernel<2, 4>;
  return per_thread == 1   ? one_shot_kernel<kMaxRanks, 1>
         : per_thread == 2 ? one_shot_kernel<kMaxRanks, 2>
                           : one_shot_kernel<kMaxRanks, 4>;
}

/// Rows [first, first + rows) alone.
AddNorm part_of(const AddNorm& args, int first, int rows) {
  AddNorm part = args;
  const long long offset = static_cast<long long>(first) * args.width;
  part.rows = rows;
  part.residual += offset;
  part.partial += offset;
  if (part.out) part.out += offset;
  if (part.feature_of_row) part.feature_of_row += first;
  return part;
}

}  // namespace

cudaError_t all_reduce_add_norm(const PeerExchange& x, const AddNorm& args, AllReduceShape shape, cudaStream_t stream) {
  if (args.width <= 0 || args.width % 8 != 0 || args.width > 4 * 8 * kMaxThreads) return cudaErrorInvalidValue;
  const int vectors = args.width / 8;
  const int needed = ceil_div(vectors, kMaxThreads), per_thread = needed == 3 ? 4 : needed;
  const int threads = ceil_div(ceil_div(vectors, per_thread), 32) * 32;
  const Kernel kernel = kernel_for(x.ranks, per_thread, shape);
  const int fits = static_cast<int>(x.slot_bytes / (16LL * units_a_vector(shape) * vectors));
  for (int first = 0; first < args.rows; first += fits) {
    const AddNorm part = part_of(args, first, args.rows - first < fits ? args.rows - first : fits);
    const int groups = shape == AllReduceShape::kTwoShot ? ceil_div(part.rows, x.ranks) : part.rows;
    const cudaError_t error =
        launch(kernel, dim3(exchange_blocks(x, groups, threads)), dim3(threads), 0, stream, x, part);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace qwenbench::kernels
