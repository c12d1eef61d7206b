// Times the attention kernels beside a read kernel of the same bytes. Launches rotate over buffers of more than five
// times the L2 cache and are replayed as a graph; the median over replays and the spread (10th to 90th percentile).
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/bench/replay.cuh"
#include "kernels/decode_attention.h"
#include "kernels/prefill_attention.h"
#include "kernels/qk_norm_rope_append.h"
#include "kernels/vision_attention.h"

using namespace qwenbench::kernels;

namespace {

/// Device memory of random bytes that are neither NaN nor large, as codes or as bf16 numbers.
__global__ void fill_kernel(uint32_t* words, std::size_t count, uint32_t seed, bool fp8) {
  for (std::size_t i = blockIdx.x * static_cast<std::size_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<std::size_t>(gridDim.x) * blockDim.x) {
    uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull + seed;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    uint32_t w = static_cast<uint32_t>(x ^ x >> 31);
    if (fp8) {
      w &= 0xbfbfbfbfu;  // magnitudes below 2
    } else {
      const float a = static_cast<float>(w & 0xffff) / 32768.0f - 1.0f,
                  b = static_cast<float>(w >> 16) / 32768.0f - 1.0f;
      const __nv_bfloat162 pair = __floats2bfloat162_rn(2 * a, 2 * b);
      w = *reinterpret_cast<const uint32_t*>(&pair);
    }
    words[i] = w;
  }
}

__global__ void read_kernel(const uint4* data, std::size_t count, uint32_t* sink) {
  uint32_t sum = 0;
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  std::size_t i = blockIdx.x * static_cast<std::size_t>(blockDim.x) + threadIdx.x;
  for (; i + 3 * stride < count; i += 4 * stride) {
    uint4 v[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) v[j] = __ldcs(data + i + j * stride);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  for (; i < count; i += stride) sum ^= data[i].x ^ data[i].w;
  if (sum == 0x12345678u) *sink = sum;
}

/// Reads what decode attention reads, in its order, and does nothing with it: a sequence's KV head a thread block, 16
/// tokens of K and of V a warp, where the block table says.
__global__ void __launch_bounds__(512)
    gather_kernel(KvLayer cache, PagedBatch batch, int length, int row_bytes, uint32_t* sink) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int items = batch.num_seqs * cache.kv_heads, parts = static_cast<int>(gridDim.x) / items;
  const int item = static_cast<int>(blockIdx.x) / parts, part = static_cast<int>(blockIdx.x) % parts;
  const int s = item / cache.kv_heads, head = item % cache.kv_heads;
  uint32_t sum = 0;
  for (int tile = part * 16 + warp; tile < length / 16; tile += parts * 16) {
    const int block = batch.block_table[s * batch.max_blocks + tile * 16 / cache.block_size];
    const std::size_t row =
        (static_cast<std::size_t>(block) * cache.kv_heads + head) * cache.block_size + tile * 16 % cache.block_size;
    const auto* k = static_cast<const char*>(cache.k) + row * row_bytes + lane * 16;
    const auto* v = static_cast<const char*>(cache.v) + row * row_bytes + lane * 16;
    for (int i = 0; i < 16 * row_bytes; i += 2048) {
      uint4 x[8];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        x[j] = __ldcs(reinterpret_cast<const uint4*>(k + i + j * 512));
        x[j + 4] = __ldcs(reinterpret_cast<const uint4*>(v + i + j * 512));
      }
#pragma unroll
      for (int j = 0; j < 8; ++j) sum ^= x[j].x ^ x[j].y ^ x[j].z ^ x[j].w;
    }
  }
  if (sum == 0x12345678u) *sink = sum;
}

template <class T>
T* upload(const std::vector<T>& host) {
  T* data;
  CHECK_CUDA(cudaMalloc(&data, host.size() * sizeof(T)));
  CHECK_CUDA(cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  return data;
}

void* random_memory(std::size_t bytes, bool fp8) {
  static uint32_t seed = 1;
  void* data;
  CHECK_CUDA(cudaMalloc(&data, bytes));
  fill_kernel<<<1024, 256>>>(static_cast<uint32_t*>(data), bytes / 4, ++seed, fp8);
  CHECK_CUDA(cudaGetLastError());
  return data;
}

/// launch(i) for i = 0 .. launches-1 is one graph; microseconds a launch.
bench::Timing time_graph(int launches, const std::function<void(int, cudaStream_t)>& launch) {
  const bench::Timing t = bench::replay(
      [&](cudaStream_t stream) {
        for (int i = 0; i < launches; ++i) launch(i, stream);
      },
      15);
  return {t.median / launches, t.p10 / launches, t.p90 / launches};
}

constexpr std::size_t kRotate = 400u << 20;  // bytes, above five times 60 MB

/// Sequences of equal length whose blocks lie at random places of one cache.
struct Paged {
  KvLayer cache;
  PagedBatch batch;
  std::size_t bytes;

  Paged(int seqs, int length, int rows, int kv_heads, int block_size, bool fp8) {
    const int blocks = (length + block_size - 1) / block_size;
    std::vector<int> table(static_cast<std::size_t>(seqs) * blocks);
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937(7));
    std::vector<int> first;
    for (int s = 0; s < seqs; ++s) first.push_back(s * rows);
    const std::size_t one = table.size() * kv_heads * block_size * kHeadDim * (fp8 ? 1 : 2);
    bytes = 2 * one;
    float* scale = upload(std::vector<float>(static_cast<std::size_t>(kv_heads), 0.5f));
    cache = {random_memory(one, fp8),
             random_memory(one, fp8),
             fp8 ? KvDtype::kFp8E4M3 : KvDtype::kBFloat16,
             kv_heads,
             block_size,
             scale,
             scale};
    batch = {upload(table),
             blocks,
             upload(std::vector<int>(static_cast<std::size_t>(seqs), length)),
             upload(first),
             upload(std::vector<int>(static_cast<std::size_t>(seqs), rows)),
             seqs};
  }
  void release() {
    cudaFree(cache.k);
    cudaFree(cache.v);
  }
};

bench::Timing time_read(std::size_t bytes) {
  const int sets = static_cast<int>(std::max<std::size_t>(2, kRotate / bytes + 1));
  std::vector<void*> data;
  for (int i = 0; i < sets; ++i) data.push_back(random_memory(bytes, true));
  uint32_t* sink;
  CHECK_CUDA(cudaMalloc(&sink, 4));
  bench::Timing best = {1e30, 0, 0};
  for (const int blocks : {132 * 4, 132 * 8, 132 * 16}) {
    const bench::Timing t = time_graph(4 * sets, [&](int i, cudaStream_t stream) {
      read_kernel<<<blocks, 512, 0, stream>>>(static_cast<const uint4*>(data[i % sets]), bytes / 16, sink);
    });
    if (t.median < best.median) best = t;
  }
  for (void* p : data) cudaFree(p);
  return best;
}

void bench_decode(int seqs, int length, int kv_heads, int heads, int block_size, bool fp8, bool codes = false) {
  std::vector<Paged> sets;
  sets.emplace_back(seqs, length, 1, kv_heads, block_size, fp8);
  const std::size_t bytes = sets[0].bytes;
  while (sets.size() * bytes < kRotate || sets.size() < 2)
    sets.emplace_back(seqs, length, 1, kv_heads, block_size, fp8);
  const std::size_t q_bytes = static_cast<std::size_t>(seqs) * heads * kHeadDim * 2;
  void *q = random_memory(q_bytes, false), *out = random_memory(q_bytes, false), *workspace;
  CHECK_CUDA(cudaMalloc(&workspace, decode_attention_workspace_bytes(seqs, heads, kv_heads)));
  const int count = static_cast<int>(sets.size());
  const auto of_set = [&](const Paged& set) {
    return DecodeAttention{q, out, heads, set.cache, set.batch, length, workspace};
  };
  CHECK_CUDA(plan_decode_attention(of_set(sets[0]), nullptr));  // of one length, all of them
  const bench::Timing t = time_graph(4 * count, [&](int i, cudaStream_t stream) {
    const Paged& set = sets[i % count];
    DecodeAttention op = of_set(set);
    if (codes) op.q_scale = set.cache.k_scale;
    CHECK_CUDA(decode_attention(op, stream));
  });
  bench::Timing gather = {0, 0, 0};
  const int items = seqs * kv_heads;
  if (items <= 264 && !std::getenv("NO_READ")) {
    gather = time_graph(2 * count, [&](int i, cudaStream_t stream) {
      const Paged& set = sets[i % count];
      gather_kernel<<<264 / items * items, 512, 0, stream>>>(set.cache, set.batch, length, fp8 ? 128 : 256,
                                                             static_cast<uint32_t*>(workspace));
    });
  }
  for (Paged& set : sets) set.release();
  cudaFree(q);
  cudaFree(out);
  cudaFree(workspace);
  const bench::Timing read = std::getenv("NO_READ") ? bench::Timing{0, 0, 0} : time_read(bytes);
  std::printf(
      "decode %s batch %2d context %5d heads %d/%d block %2d: %8.1f MB %8.2f us (%.2f-%.2f) %5.0f GB/s, read %8.2f us"
      " %5.0f GB/s, share %.3f; gather %.2f us\n",
      codes ? "fp8x"
      : fp8 ? "fp8 "
            : "bf16",
      seqs, length, heads, kv_heads, block_size, 1e-6 * static_cast<double>(bytes), t.median, t.p10, t.p90,
      1e-3 * static_cast<double>(bytes) / t.median, read.median, 1e-3 * static_cast<double>(bytes) / read.median,
      read.median / t.median, gather.median);
}

void bench_prefill(int rows, int length, int kv_heads, int heads, bool fp8, bool codes = false, bool wgmma = true) {
  Paged set(1, length, rows, kv_heads, 16, fp8);
  const std::size_t q_bytes = static_cast<std::size_t>(rows) * heads * kHeadDim * 2;
  PrefillAttention op;
  op.q = random_memory(q_bytes, false);
  op.out = random_memory(q_bytes, false);
  op.rows = rows;
  op.heads = heads;
  op.cache = set.cache;
  op.batch = set.batch;
  op.max_total_kv = length;
  op.workspace_bytes = prefill_attention_workspace_bytes(length, 1, 16, kv_heads);
  CHECK_CUDA(cudaMalloc(&op.workspace, op.workspace_bytes));
  if (codes) op.q_scale = set.cache.k_scale;
  op.use_wgmma = wgmma;
  const bench::Timing t = time_graph(4, [&](int, cudaStream_t stream) { CHECK_CUDA(prefill_attention(op, stream)); });
  const double keys = (static_cast<double>(length) - rows) * rows + 0.5 * rows * (rows + 1.0);
  const double flops = 4.0 * kHeadDim * heads * keys;
  std::printf("prefill %s%s rows %5d context %5d heads %d/%d: %9.1f us (%.1f-%.1f) %6.1f TFLOP/s\n",
              codes ? "fp8x"
              : fp8 ? "fp8 "
                    : "bf16",
              wgmma ? "" : ", mma.sync", rows, length, heads, kv_heads, t.median, t.p10, t.p90,
              1e-6 * flops / t.median);
  set.release();
  cudaFree(const_cast<void*>(op.q));
  cudaFree(op.out);
  cudaFree(op.workspace);
}

void bench_vision(int patches, int heads, int dim, bool wgmma = true) {
  const std::size_t elements = static_cast<std::size_t>(patches) * heads * dim;
  void *qkv = random_memory(elements * 6, false), *out = random_memory(elements * 2, false);
  const bench::Timing t = time_graph(
      8, [&](int, cudaStream_t stream) { CHECK_CUDA(vision_attention(qkv, out, patches, heads, dim, stream, wgmma)); });
  std::printf("vision%s patches %5d heads %d x %d: %9.1f us (%.1f-%.1f) %6.1f TFLOP/s\n", wgmma ? "" : ", mma.sync",
              patches, heads, dim, t.median, t.p10, t.p90, 4e-6 * patches * static_cast<double>(elements) / t.median);
  cudaFree(qkv);
  cudaFree(out);
}

void bench_append(int tokens, int heads, int kv_heads) {
  Paged set(1, tokens, tokens, kv_heads, 16, true);
  const std::size_t width = static_cast<std::size_t>(heads + 2 * kv_heads) * kHeadDim;
  const std::size_t bytes = tokens * (width * 2 + static_cast<std::size_t>(heads) * kHeadDim * 2 +
                                      2 * static_cast<std::size_t>(kv_heads) * kHeadDim + 512);
  const int sets = static_cast<int>(std::min<std::size_t>(64, kRotate / bytes + 2));
  std::vector<std::int64_t> slots(static_cast<std::size_t>(tokens));
  std::iota(slots.begin(), slots.end(), 0);
  std::vector<void*> in, q;
  for (int i = 0; i < sets; ++i) {
    in.push_back(random_memory(tokens * width * 2, false));
    q.push_back(random_memory(tokens * static_cast<std::size_t>(heads) * kHeadDim * 2, false));
  }
  float* angles = upload(std::vector<float>(static_cast<std::size_t>(tokens) * 64, 0.7f));
  void* weight = random_memory(256, false);
  const std::int64_t* slot = upload(slots);
  const bench::Timing t = time_graph(sets, [&](int i, cudaStream_t stream) {
    CHECK_CUDA(qk_norm_rope_append({in[i], q[i], tokens, heads, weight, weight, 1e-6f, angles, angles, set.cache, slot},
                                   stream));
  });
  std::printf("qk norm, rope, append tokens %5d heads %d/%d: %8.2f us (%.2f-%.2f) %5.0f GB/s\n", tokens, heads,
              kv_heads, t.median, t.p10, t.p90, 1e-3 * static_cast<double>(bytes) / t.median);
  for (int i = 0; i < sets; ++i) {
    cudaFree(in[i]);
    cudaFree(q[i]);
  }
  set.release();
}

/// Attention over many query rows, of text and of pictures.
void bench_prefills() {
  bench_prefill(8192, 8192, 8, 64, true, false, false);
  bench_prefill(8192, 8192, 8, 64, true);
  bench_prefill(8192, 8192, 8, 64, false);
  bench_prefill(8192, 8192, 8, 64, true, true);
  bench_prefill(8192, 8192, 4, 32, true);
  bench_prefill(2048, 8192, 8, 64, true);
  bench_prefill(2048, 2048, 8, 64, true);
  bench_prefill(512, 1024, 8, 64, true);
  bench_vision(4096, 16, 72, false);
  bench_vision(4096, 16, 72);
  bench_vision(4096, 16, 64);
  bench_vision(1024, 16, 72);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string only = argc > 1 ? argv[1] : "";
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 0;
  }
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
  if (only == "quick") {
    for (const int block : {64, 16}) {
      bench_decode(16, 8192, 8, 64, block, true);
      bench_decode(16, 1024, 8, 64, block, true);
    }
    bench_decode(16, 32768, 8, 64, 64, true);
    bench_decode(1, 1024, 8, 64, 64, true);
    bench_decode(1, 8192, 8, 64, 64, true);
    bench_decode(1, 32768, 8, 64, 64, true);
    if (argc > 2) return 0;
    bench_decode(16, 8192, 8, 64, 64, false);
    bench_decode(1, 8192, 8, 64, 64, false);
    bench_decode(16, 8192, 4, 32, 64, true);
    bench_decode(16, 8192, 8, 64, 64, true, true);
    bench_append(1, 64, 8);
    bench_append(16, 64, 8);
    bench_prefill(2048, 8192, 8, 64, true);
    return 0;
  }
  if (only == "prefill") {
    bench_prefills();
    return 0;
  }
  bench_decode(16, 8192, 8, 64, 16, true);
  bench_decode(16, 8192, 8, 64, 64, true);
  bench_decode(16, 32768, 8, 64, 16, true);
  bench_decode(16, 8192, 8, 64, 16, false);
  bench_decode(16, 1024, 8, 64, 16, true);
  bench_decode(1, 1024, 8, 64, 16, true);
  bench_decode(1, 8192, 8, 64, 16, true);
  bench_decode(1, 32768, 8, 64, 16, true);
  bench_decode(16, 8192, 4, 32, 16, true);
  bench_decode(16, 8192, 8, 32, 16, true);
  bench_decode(16, 8192, 8, 64, 64, true, true);
  bench_prefills();
  bench_append(8192, 64, 8);
  bench_append(16, 64, 8);
  bench_append(1, 64, 8);
}
