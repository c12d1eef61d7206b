// Sums and gathers between GPUs that can write into each other's memory (peer access): one kernel a call, and no call
// of the host in between, so that they can be captured in CUDA graphs.
//
// Every rank pushes its values into a slot of each peer's staging buffer and polls its own slots until no 32-bit word
// of them is kEmptyWord: the data are their own flags, and one trip over the link suffices (Lamport's exchange, known
// as "one-shot"). Three staging buffers take turns. In call k buffer k % 3 is in use; a rank that is one call ahead may
// already write buffer (k + 1) % 3; and buffer (k - 1) % 3 is emptied, which no rank can write before this one has
// entered call k + 1. Whose turn it is lies in device memory and is advanced by the kernels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace qwenbench::kernels {

constexpr int kMaxRanks = 8;
constexpr int kExchangeBuffers = 3;
constexpr long long kQuadBytes = 512 << 10;

/// Two bf16 NaNs, or one fp32 NaN. A value with these bits is sent as another NaN.
constexpr std::uint32_t kEmptyWord = 0xffffffffu;

/// One rank's, in device memory; all zero at first.
struct alignas(16) ExchangeState {
  std::uint32_t buffer;          // whose turn it is: 0 ... 2
  std::uint32_t previous_bytes;  // of a slot, written in the previous call
  std::uint32_t arrived;         // blocks of the running kernel that have read this
  std::uint32_t unused;
  unsigned long long nanoseconds;  // block 0 was in collectives, waiting for peers included, since the beginning
  std::uint32_t quad_calls;        // kernels that have exchanged quads
};

/// Why a kernel stopped waiting. Each reason has a word of its own: the threads of one kernel may have different ones.
enum class GaveUp : std::uint32_t { kTimeOut = 0, kAborted = 1 };

/// What a rank's kernels need to reach the others, passed by value: fixed while the buffers live, hence safe in graphs.
/// All ranks make the same calls, of the same sizes, in the same order, each on one stream.
struct PeerExchange {
  int rank = 0, ranks = 1;
  /// staging[r]: rank r's memory, [kExchangeBuffers][ranks as sources][slot_bytes], all bytes 0xff at first.
  std::byte* staging[kMaxRanks] = {};
  /// quads[r]: rank r's memory for sums inside a kernel (decode_chain.h), [2][ranks as sources][kQuadBytes], all bytes
  /// 0xff at first: units of 16 bytes, two pairs of bf16 values with a flag beside each, which names the call. The two
  /// take turns, since a rank that is two calls ahead has had this one's answer to the call between.
  std::byte* quads[kMaxRanks] = {};
  long long slot_bytes = 0;  // a multiple of 16, below 4 GiB; longer calls are cut into several kernels
  ExchangeState* state = nullptr;
  std::uint32_t* abort = nullptr;    // mapped host memory of all ranks: non-zero: nobody waits any more
  std::uint32_t* gave_up = nullptr;  // mapped host memory of this rank: gave_up[GaveUp] is 1 where that happened
  unsigned long long time_out_ns = 0;
  int sharing = 1;            // ranks on a device, at most
  int max_threads = 0;        // of one grid. Ranks that share a device must leave room for each other
  bool overlap_next = false;  // lets the next kernel start early. Not where ranks share a device: it could fill it
};

/// values [count] become their sum over ranks: fp32, in rank order, the same bits on every rank. 16-byte aligned.
cudaError_t all_reduce(const PeerExchange& exchange, __nv_bfloat16* values, long long count, cudaStream_t stream);

/// out [rows, ranks, row_bytes]: out[row][r] = rank r's mine[row]. Of bf16 or fp32 values (a NaN stays some NaN);
/// row_bytes is even.
cudaError_t all_gather(const PeerExchange& exchange, const void* mine, int rows, std::size_t row_bytes, void* out,
                       cudaStream_t stream);

}  // namespace qwenbench::kernels
