// A fixed set of threads that all run the same short task: low-latency fork/join for one rank's operations.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace qwenbench {

/// run() calls task(index) for index 0..size()-1, index 0 on the calling thread, and returns when all are done; an
/// exception in any of them is rethrown by run() (the lowest index wins). Between tasks the workers spin for a short
/// while, then sleep: an operation of a small model takes microseconds, a futex wake-up tens of them.
class ThreadPool {
 public:
  explicit ThreadPool(int size);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }
  void run(const std::function<void(int index)>& task);

  /// Splits [0, count) into size() contiguous ranges: task(begin, end), empty ranges left out. Which thread computes
  /// what never changes a result: every output is computed whole by one thread.
  void parallel_for(std::int64_t count, const std::function<void(std::int64_t begin, std::int64_t end)>& task);

 private:
  void worker(int index);
  bool wait_for_task(std::uint64_t seen);

  std::vector<std::thread> workers_;
  std::vector<std::exception_ptr> errors_;
  const std::function<void(int)>* task_ = nullptr;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> pending_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

/// Cores this process may run on (its affinity mask), at least 1.
int available_cores();

}  // namespace qwenbench
