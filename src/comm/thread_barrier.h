// A barrier for the ranks of one process that can be aborted. Waiting spins for a while, then sleeps: a step of a small
// model makes a dozen all-reduces of microseconds, and a futex wake-up takes tens of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/error.h"
#include "base/thread_pool.h"

namespace qwenbench::comm {

class ThreadBarrier {
 public:
  explicit ThreadBarrier(int size) : size_(size), spins_(size <= available_cores() ? kSpins : 0) {}

  /// Returns when all ranks have arrived; what they wrote before is then visible. Throws DeviceError where abort() came
  /// before the last of them.
  void arrive_and_wait() {
    const std::uint32_t state = state_.load(std::memory_order_acquire);
    if (state & kAborted) fail();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      state_.fetch_add(kPhase, std::memory_order_release);
      state_.notify_all();
      return;
    }
    wait_for_change(state);
    // A phase that was completed counts, even if another rank has ended since.
    if ((state_.load(std::memory_order_acquire) & ~kAborted) == state) fail();
  }

  void abort() {
    state_.fetch_or(kAborted, std::memory_order_release);
    state_.notify_all();
  }

 private:
  static constexpr std::uint32_t kAborted = 1, kPhase = 2;
  static constexpr int kSpins = 4000;  // about 50 us

  void wait_for_change(std::uint32_t state) const {
    for (int spin = 0; spin < spins_; ++spin) {
      if (state_.load(std::memory_order_acquire) != state) return;
#if defined(__x86_64__)
      _mm_pause();
#else
      std::this_thread::yield();
#endif
    }
    state_.wait(state, std::memory_order_acquire);
  }

  [[noreturn]] static void fail() {
    throw DeviceError("another rank stopped after a failure; see its error, then load the model again");
  }

  const int size_;
  const int spins_;  // none where ranks share cores: the spinner would hold up the rank it waits for
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<std::uint32_t> state_{0};  // the phase, and whether it was aborted
};

}  // namespace qwenbench::comm
