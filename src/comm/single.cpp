#include <algorithm>

#include "base/error.h"
#include "comm/abort_hooks.h"
#include "comm/communicator.h"

namespace qwenbench::comm {
namespace {

class SingleCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce(std::span<float>) override { check(); }
  void all_gather(std::span<const float> mine, std::span<float> out) override {
    check();
    std::copy(mine.begin(), mine.end(), out.begin());
  }
  void barrier() override { check(); }
  void abort() override {
    aborted_ = true;
    hooks_.run();
  }
  void on_abort(std::function<void()> fn) override { hooks_.add(std::move(fn)); }

 private:
  void check() const {
    if (aborted_) throw DeviceError("the communicator was aborted after an earlier failure; load the model again");
  }
  bool aborted_ = false;
  AbortHooks hooks_;
};

}  // namespace

std::unique_ptr<Communicator> make_single() { return std::make_unique<SingleCommunicator>(); }

}  // namespace qwenbench::comm
