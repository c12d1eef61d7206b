// What is to be called once when ranks are told to stop waiting.
#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace qwenbench::comm {

class AbortHooks {
 public:
  void add(std::function<void()> fn) {
    std::unique_lock lock(mutex_);
    if (!done_) {
      hooks_.push_back(std::move(fn));
      return;
    }
    lock.unlock();
    fn();
  }

  void run() {
    std::vector<std::function<void()>> hooks;
    {
      std::lock_guard lock(mutex_);
      done_ = true;
      hooks.swap(hooks_);
    }
    for (const auto& hook : hooks) hook();
  }

 private:
  std::mutex mutex_;
  bool done_ = false;
  std::vector<std::function<void()>> hooks_;
};

}  // namespace qwenbench::comm
