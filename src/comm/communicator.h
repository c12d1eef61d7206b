// What the ranks of one model say to each other. One object a rank; every rank makes the same calls in the same order.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace qwenbench::comm {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// values[i] becomes the sum over ranks, added up as a balanced binary tree in rank order: every rank holds the same
  /// bits, and a tree of 2 ranks over half-sums is the upper level of the tree that one rank computes alone.
  virtual void all_reduce(std::span<float> values) = 0;

  /// out[r * mine.size() ...] = rank r's `mine`; sizes are equal on all ranks.
  virtual void all_gather(std::span<const float> mine, std::span<float> out) = 0;

  virtual void barrier() = 0;

  /// After a rank has failed: every rank that waits, now or later, throws DeviceError instead of waiting for ever.
  virtual void abort() = 0;

  /// fn is called once, by the thread that aborts: for what else waits on behalf of the ranks (kernels). At once where
  /// that has happened already.
  virtual void on_abort(std::function<void()> fn) = 0;
};

std::unique_ptr<Communicator> make_single();

/// The reference: `size` ranks that are threads of this process, exchanging through shared memory.
std::vector<std::unique_ptr<Communicator>> make_threads(int size);

}  // namespace qwenbench::comm
