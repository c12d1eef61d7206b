#include <algorithm>
#include <array>
#include <cstddef>
#include <stdexcept>

#include "comm/abort_hooks.h"
#include "comm/communicator.h"
#include "comm/thread_barrier.h"

namespace qwenbench::comm {
namespace {

constexpr std::size_t kBlock = 256;  // floats summed at a time: small enough to stay in the nearest cache

/// What the ranks share. Between two barriers every rank may read what the others have published.
class Exchange {
 public:
  explicit Exchange(int size) : barrier(size), size_(size), published_(static_cast<std::size_t>(size)) {}

  /// Shows `values` to the others and waits until all have done so.
  void publish(int rank, std::span<float> values) {
    published_[rank] = values;
    barrier.arrive_and_wait();
    for (const auto& other : published_) {
      if (other.size() != values.size()) throw std::logic_error("ranks disagree on the size of a collective");
    }
  }
  std::span<float> of(int rank) const { return published_[rank]; }
  int size() const { return size_; }

  /// out[0, count) = sum over ranks [begin, end) of their values from `first` on: a balanced tree in rank order.
  void sum(int begin, int end, std::size_t first, std::size_t count, float* out) const {
    if (end - begin == 1) {
      std::copy_n(published_[begin].data() + first, count, out);
      return;
    }
    const int middle = begin + (end - begin) / 2;
    std::array<float, kBlock> right;
    sum(begin, middle, first, count, out);
    sum(middle, end, first, count, right.data());
    for (std::size_t i = 0; i < count; ++i) out[i] += right[i];
  }

  void abort() {
    barrier.abort();
    abort_hooks.run();
  }

  ThreadBarrier barrier;
  AbortHooks abort_hooks;

 private:
  const int size_;
  std::vector<std::span<float>> published_;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Exchange> exchange, int rank) : exchange_(std::move(exchange)), rank_(rank) {}

  /// A rank whose thread ends (an exception unwinds it) must not leave the others waiting.
  ~ThreadCommunicator() override { exchange_->abort(); }

  int rank() const override { return rank_; }
  int size() const override { return exchange_->size(); }

  /// Each element is summed by one rank, which writes it to all: equal bits everywhere, and no second copy.
  void all_reduce(std::span<float> values) override {
    exchange_->publish(rank_, values);
    const std::size_t blocks = (values.size() + kBlock - 1) / kBlock;
    const std::size_t begin = blocks * rank_ / size(), end = blocks * (rank_ + 1) / size();
    std::array<float, kBlock> total;
    for (std::size_t block = begin; block < end; ++block) {
      const std::size_t first = block * kBlock, count = std::min(kBlock, values.size() - first);
      exchange_->sum(0, size(), first, count, total.data());
      for (int rank = 0; rank < size(); ++rank) std::copy_n(total.data(), count, exchange_->of(rank).data() + first);
    }
    exchange_->barrier.arrive_and_wait();
  }

  void all_gather(std::span<const float> mine, std::span<float> out) override {
    // Nobody writes through what is published here.
    exchange_->publish(rank_, {const_cast<float*>(mine.data()), mine.size()});
    if (!out.empty()) {
      if (out.size() != mine.size() * size()) throw std::logic_error("all_gather: out must hold one part a rank");
      for (int rank = 0; rank < size(); ++rank) {
        std::copy_n(exchange_->of(rank).data(), mine.size(), out.data() + mine.size() * rank);
      }
    }
    exchange_->barrier.arrive_and_wait();
  }

  void barrier() override { exchange_->barrier.arrive_and_wait(); }
  void abort() override { exchange_->abort(); }
  void on_abort(std::function<void()> fn) override { exchange_->abort_hooks.add(std::move(fn)); }

 private:
  std::shared_ptr<Exchange> exchange_;
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_threads(int size) {
  if (size < 1) throw std::invalid_argument("make_threads needs at least one rank");
  auto exchange = std::make_shared<Exchange>(size);
  std::vector<std::unique_ptr<Communicator>> ranks;
  ranks.reserve(static_cast<std::size_t>(size));
  for (int rank = 0; rank < size; ++rank) ranks.push_back(std::make_unique<ThreadCommunicator>(exchange, rank));
  return ranks;
}

}  // namespace qwenbench::comm
