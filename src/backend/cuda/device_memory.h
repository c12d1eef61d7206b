// Device and pinned memory, streams and events, each with one owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "base/cuda_check.h"

namespace qwenbench::backend::cuda {

/// For tests: QWENBENCH_TEST_POISON is set.
inline bool poisons_memory() {
  static const bool poisons = std::getenv("QWENBENCH_TEST_POISON") != nullptr;
  return poisons;
}

/// Plain cudaMalloc memory of `count` elements.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t count) { reserve(count); }
  ~DeviceArray() { release(); }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  /// At least `count` elements; what was there is lost where it grows. Returns whether the address changed.
  bool reserve(std::size_t count) {
    if (count <= size_) return false;
    release();
    QWENBENCH_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(T)));
    size_ = count;
    if (poisons_memory()) poison();
    return true;
  }

  T* get() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }

 private:
  /// NaNs in every form, and indices that lead nowhere: who reads what was not written shows it.
  void poison() {
    QWENBENCH_CUDA(cudaMemset(data_, 0xff, bytes()));
    QWENBENCH_CUDA(cudaDeviceSynchronize());
  }
  void release() {
    if (data_) cudaFree(data_);
    data_ = nullptr;
    size_ = 0;
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;
};

// ---- for every stream: done when the call returns. cudaMemcpy() from pageable memory and cudaMemset() may return
// earlier, and what is queued on streams that do not block does not wait for them. ----

template <class T>
void copy_to_device(T* to, const T* from, std::size_t count) {
  QWENBENCH_CUDA(cudaMemcpy(to, from, count * sizeof(T), cudaMemcpyHostToDevice));
  QWENBENCH_CUDA(cudaStreamSynchronize(cudaStreamLegacy));
}
template <class T>
void fill_with_zeros(DeviceArray<T>& array) {
  QWENBENCH_CUDA(cudaMemset(array.get(), 0, array.bytes()));
  QWENBENCH_CUDA(cudaStreamSynchronize(cudaStreamLegacy));
}

/// Page-locked host memory: copies from it run at full speed and beside other work.
template <class T>
class PinnedArray {
 public:
  PinnedArray() = default;
  explicit PinnedArray(std::size_t count) { reserve(count); }
  ~PinnedArray() { release(); }
  PinnedArray(const PinnedArray&) = delete;
  PinnedArray& operator=(const PinnedArray&) = delete;

  void reserve(std::size_t count) {
    if (count <= size_) return;
    release();
    QWENBENCH_CUDA(cudaMallocHost(reinterpret_cast<void**>(&data_), count * sizeof(T)));
    size_ = count;
  }

  T* get() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  void release() {
    if (data_) cudaFreeHost(data_);
    data_ = nullptr;
    size_ = 0;
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;
};

class Stream {
 public:
  Stream() { QWENBENCH_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }
  void synchronize() const { QWENBENCH_CUDA(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() { QWENBENCH_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace qwenbench::backend::cuda
