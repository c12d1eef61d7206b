#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace qwenbench {
namespace {

constexpr int kSpins = 4000;  // about 50 us; then sleep, so that an idle engine takes no core

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

// NOLINTNEXTLINE(bugprone-throw-keyword-missing): a vector of exceptions, none yet
ThreadPool::ThreadPool(int size) : errors_(static_cast<std::size_t>(std::max(size, 1))) {
  for (int index = 1; index < size; ++index) workers_.emplace_back([this, index] { worker(index); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (auto& thread : workers_) thread.join();
}

bool ThreadPool::wait_for_task(std::uint64_t seen) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (generation_.load(std::memory_order_acquire) != seen) return !stop_;
    pause();
  }
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return generation_.load() != seen; });
  return !stop_;
}

void ThreadPool::worker(int index) {
  std::uint64_t seen = 0;
  while (wait_for_task(seen)) {
    ++seen;
    try {
      (*task_)(index);
    } catch (...) {
      errors_[index] = std::current_exception();
    }
    pending_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::run(const std::function<void(int)>& task) {
  if (workers_.empty()) {
    task(0);
    return;
  }
  task_ = &task;
  pending_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  {
    std::lock_guard lock(mutex_);  // pairs with the check before a worker sleeps
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  try {
    task(0);
  } catch (...) {
    errors_[0] = std::current_exception();
  }
  for (int spin = 0; pending_.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < kSpins)
      pause();
    else
      std::this_thread::yield();
  }
  for (auto& error : errors_) {
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }
}

void ThreadPool::parallel_for(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& task) {
  const std::int64_t parts = std::min<std::int64_t>(size(), count);
  if (parts <= 1) {
    if (count > 0) task(0, count);
    return;
  }
  run([&](int index) {
    if (index < parts) task(count * index / parts, count * (index + 1) / parts);
  });
}

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return std::max(1u, std::thread::hardware_concurrency());
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace qwenbench
