#include "calibration/calibrator.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "base/interrupt.h"
#include "calibration/attention_error.h"

namespace qwenbench::calibration {
namespace {

using workload::Request;

std::int64_t tokens_of(const Request& request) {
  const auto generated = request.forced.empty() ? std::max(0, request.max_tokens - 1) : 0;
  return static_cast<std::int64_t>(request.prompt.size() + request.forced.size()) + generated;
}

class Calibrator {
 public:
  Calibrator(const OpenRun& open, std::span<const Request> requests, const CalibratorOptions& options)
      : open_(open), requests_(requests), options_(options), trace_estimator_(options.estimator) {
    if (trace_estimator_.method == "attention_mse") trace_estimator_.method = "absmax";
    for (const std::size_t index : covering_order(requests.size())) order_.push_back(&requests[index]);
  }

  Calibration run() {
    check_options(options_.estimator);
    if (requests_.empty()) throw InputError("the calibration set is empty; name a dataset that holds requests");
    result_.statistics = std::make_unique<KvStatistics>(options_.shape);
    if (options_.estimator.method == "vllm") {
      first_batch();
    } else {
      resume();
      all_batches();
    }
    if (!result_.cancelled) make_scales();
    return std::move(result_);
  }

 private:
  void finished(int count) {
    if (options_.on_finished) options_.on_finished(count);
  }

  /// vLLM computed its scales in the first forward pass and never again.
  void first_batch() {
    const auto run = open_(*result_.statistics);
    for (const Request* request : order_) run->submit(*request);
    run->step();
    result_.requests = static_cast<int>(order_.size());
    finished(result_.requests);
    run->reset();
  }

  void resume() {
    if (!options_.state) return;
    if (!load_statistics(*options_.state, *result_.statistics, looks_, options_.state_key) || looks_.empty()) return;
    result_.requests = std::min(looks_.back().requests, static_cast<int>(order_.size()));
    result_.resumed_from = result_.requests;
    tokens_ = looks_.back().tokens;
    finished(result_.requests);
  }

  /// A batch runs to its end before the next one begins, so that a look depends on neither batching nor interruption.
  void all_batches() {
    const auto run = open_(*result_.statistics);
    result_.settled = settled();
    while (result_.requests < static_cast<int>(order_.size()) && !result_.settled) {
      const int begin = result_.requests;
      const int end = std::min(begin + options_.look_every, static_cast<int>(order_.size()));
      std::vector<Request> batch;
      for (int i = begin; i < end; ++i) batch.push_back(*order_[static_cast<std::size_t>(i)]);
      if (!collect_statistics(*run, *result_.statistics, batch, [this] { finished(1); })) {
        result_.cancelled = true;  // what the batch left behind is not kept: the state on disk is that before it
        return;
      }
      result_.requests = end;
      for (const Request& request : batch) tokens_ += tokens_of(request);
      looks_.push_back({end, tokens_, estimate_scales(*result_.statistics, trace_estimator_)});
      if (options_.state) save_statistics(*options_.state, *result_.statistics, looks_, options_.state_key);
      result_.settled = settled();
    }
  }

  bool settled() const {
    if (looks_.empty() || options_.settle_after == 0) return false;
    const Look& now = looks_.back();
    if (now.requests < options_.settle_after || now.requests >= static_cast<int>(order_.size())) return false;
    const auto half = std::find_if(looks_.rbegin(), looks_.rend(),
                                   [&](const Look& look) { return 2 * look.requests <= now.requests; });
    return half != looks_.rend() && change_of(half->scales, now.scales).largest < options_.settled_change;
  }

  void make_scales() {
    const EstimatorOptions& estimator = options_.estimator;
    if (estimator.method == "attention_mse") {
      attention_scales();
    } else {
      result_.scales = estimate_scales(*result_.statistics, estimator);
    }
    result_.scales.samples = tokens_;
    for (std::size_t i = 0; i < looks_.size(); ++i) {
      Convergence point{looks_[i].requests, looks_[i].tokens, 0, 0};
      if (i > 0) {
        const ScaleChange change = change_of(looks_[i - 1].scales, looks_[i].scales);
        point.change = change.largest;
        point.layer = change.layer;
      }
      result_.trace.push_back(point);
    }
  }

  void attention_scales() {
    EstimatorOptions absmax = options_.estimator;
    absmax.method = "absmax";
    absmax.round = "none";
    StatisticsShape shape = options_.shape;
    shape.query_heads = options_.query_heads;
    AttentionError errors(shape, estimate_scales(*result_.statistics, absmax));
    const auto run = open_(errors);
    const std::size_t count = std::min(order_.size(), static_cast<std::size_t>(options_.attention_requests));
    for (std::size_t i = 0; i < count; ++i) {
      run->submit(*order_[i]);
      while (!run->idle()) {
        if (interrupted()) {
          result_.cancelled = true;
          return;
        }
        run->step();
      }
      errors.finish_request(*options_.pool);
    }
    result_.scales = errors.best_scales();
    result_.scales.method = method_text(options_.estimator);
    round_scales(result_.scales, options_.estimator);
  }

  const OpenRun& open_;
  std::span<const Request> requests_;
  const CalibratorOptions& options_;
  EstimatorOptions trace_estimator_;
  std::vector<const Request*> order_;
  std::vector<Look> looks_;
  std::int64_t tokens_ = 0;
  Calibration result_;
};

}  // namespace

Calibration calibrate(const OpenRun& open, std::span<const Request> requests, const CalibratorOptions& options) {
  if (options.estimator.method == "bound") {
    Calibration result;
    result.scales = bound_scales(options.key_bounds, options.estimator);
    return result;
  }
  return Calibrator(open, requests, options).run();
}

std::vector<std::size_t> covering_order(std::size_t count) {
  const unsigned bits = static_cast<unsigned>(std::bit_width(count > 0 ? count - 1 : 0));
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < std::size_t{1} << bits; ++i) {
    std::size_t reversed = 0;
    for (unsigned bit = 0; bit < bits; ++bit) reversed |= (i >> bit & 1) << (bits - 1 - bit);
    if (reversed < count) order.push_back(reversed);
  }
  return order;
}

}  // namespace qwenbench::calibration
