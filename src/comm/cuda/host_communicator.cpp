#include <cuda_bf16.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/cuda_check.h"
#include "comm/cuda/device_communicator.h"

namespace qwenbench::comm {
namespace {

using Clock = std::chrono::steady_clock;

/// Of all ranks together, on the host at a time.
constexpr std::size_t kChunkBytes = 1 << 20;

class PinnedBytes {
 public:
  PinnedBytes() = default;
  ~PinnedBytes() { cudaFreeHost(data_); }
  PinnedBytes(const PinnedBytes&) = delete;
  PinnedBytes& operator=(const PinnedBytes&) = delete;

  std::byte* reserve(std::size_t bytes) {
    if (bytes > size_) {
      QWENBENCH_CUDA(cudaFreeHost(std::exchange(data_, nullptr)));
      size_ = 0;
      QWENBENCH_CUDA(cudaMallocHost(reinterpret_cast<void**>(&data_), bytes));
      size_ = bytes;
    }
    return data_;
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

class HostCommunicator final : public DeviceCommunicator {
 public:
  explicit HostCommunicator(std::shared_ptr<Communicator> host) : host_(std::move(host)) {}

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  std::string name() const override { return "host"; }
  bool can_be_captured() const override { return false; }

  void all_reduce(__nv_bfloat16* values, std::size_t count, cudaStream_t stream) override {
    const std::size_t bytes = count * sizeof(__nv_bfloat16);
    std::byte* const mine = read(values, bytes, stream);
    const auto begin = Clock::now();
    for (std::size_t at = 0; at < bytes; at += kChunkBytes) sum(mine + at, std::min(kChunkBytes, bytes - at));
    write(values, mine, bytes, stream);
    took_ += Clock::now() - begin;
  }

  void all_gather(const void* mine, int rows, std::size_t row_bytes, void* out, cudaStream_t stream) override {
    const std::size_t bytes = rows * row_bytes, ranks = static_cast<std::size_t>(size());
    const std::byte* const from = read(mine, bytes, stream);
    const auto begin = Clock::now();
    gather(from, bytes);
    std::byte* const to = result_.reserve(bytes * ranks);
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row)
      for (std::size_t r = 0; r < ranks; ++r)
        std::memcpy(to + (row * ranks + r) * row_bytes, part_of(r, bytes) + row * row_bytes, row_bytes);
    write(out, to, bytes * ranks, stream);
    took_ += Clock::now() - begin;
  }

  void all_reduce_add_norm(const kernels::AddNorm& args, cudaStream_t stream) override {
    const std::size_t count = static_cast<std::size_t>(args.rows) * args.width;
    all_reduce(const_cast<__nv_bfloat16*>(args.partial), count, stream);
    QWENBENCH_CUDA(kernels::add_norm(args, stream));
  }

  void synchronize(cudaStream_t stream) override { QWENBENCH_CUDA(cudaStreamSynchronize(stream)); }
  void check() override {}  // what fails throws at once
  std::optional<double> seconds() const override { return std::chrono::duration<double>(took_).count(); }

 private:
  std::byte* read(const void* from, std::size_t bytes, cudaStream_t stream) {
    std::byte* const to = mine_.reserve(bytes);
    QWENBENCH_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
    synchronize(stream);
    return to;
  }

  void write(void* to, const std::byte* from, std::size_t bytes, cudaStream_t stream) {
    QWENBENCH_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
    synchronize(stream);
  }

  /// Bytes travel four as one float, which the host communicator copies as it is.
  void gather(const std::byte* bytes, std::size_t count) {
    sent_.resize(words_of(count));
    if (count > 0) std::memcpy(sent_.data(), bytes, count);
    received_.resize(sent_.size() * static_cast<std::size_t>(size()));
    host_->all_gather(sent_, received_);
  }
  static std::size_t words_of(std::size_t bytes) { return (bytes + sizeof(float) - 1) / sizeof(float); }
  const std::byte* part_of(std::size_t rank, std::size_t bytes) const {
    return reinterpret_cast<const std::byte*>(received_.data() + rank * words_of(bytes));
  }

  /// `values` are bf16; every rank adds all parts in rank order, so that all hold the same bits.
  void sum(std::byte* values, std::size_t bytes) {
    gather(values, bytes);
    const std::size_t count = bytes / sizeof(__nv_bfloat16);
    sums_.assign(count, 0.0f);
    for (std::size_t r = 0; r < static_cast<std::size_t>(size()); ++r) {
      const auto* part = reinterpret_cast<const __nv_bfloat16*>(part_of(r, bytes));
      for (std::size_t i = 0; i < count; ++i)
        sums_[i] = r == 0 ? __bfloat162float(part[i]) : sums_[i] + __bfloat162float(part[i]);
    }
    auto* const out = reinterpret_cast<__nv_bfloat16*>(values);
    for (std::size_t i = 0; i < count; ++i) out[i] = __float2bfloat16_rn(sums_[i]);
  }

  std::shared_ptr<Communicator> host_;
  PinnedBytes mine_, result_;
  std::vector<float> sent_, received_, sums_;
  Clock::duration took_{};
};

}  // namespace

std::unique_ptr<DeviceCommunicator> make_host(std::shared_ptr<Communicator> host) {
  return std::make_unique<HostCommunicator>(std::move(host));
}

}  // namespace qwenbench::comm
