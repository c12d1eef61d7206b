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

/// That pass through the cache: the last output token does not.
std::int64_t tokens_of(const Request& request) {
  const auto output = request.forced.empty() ? std::int64_t{request.max_tokens} : std::ssize(request.forced);
  return std::ssize(request.prompt) + std::max(std::int64_t{0}, output - 1);
}

class Calibrator {
 public:
  Calibrator(const OpenRun& open, std::span<const Request> requests, const CalibratorOptions& options)
      : open_(open), requests_(requests), options_(options), trace_estimator_(options.estimator) {
    if (trace_estimator_.method == "attention_mse") trace_estimator_.method = "absmax";
    if (options.estimator.method == "vllm") {  // whose first step takes what comes first
      for (const Request& request : requests) order_.push_back(&request);
      return;
    }
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
    const CalibrationStep step = run->step();
    result_.requests = step.begun;
    tokens_ = step.tokens;
    finished(static_cast<int>(order_.size()));
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
    const int size = static_cast<int>(order_.size()), step = std::min(options_.look_every, (size + 3) / 4);
    result_.ended_early = may_end();
    while (result_.requests < size && !result_.ended_early) {
      const int begin = result_.requests, end = std::min(begin + step, size);
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
      result_.ended_early = may_end();
    }
    result_.movements.push_back(movement_of(trace_estimator_.method, looks_));
  }

  bool may_end() const {
    if (looks_.empty() || options_.settle_after == 0) return false;
    const int seen = looks_.back().requests;
    if (seen < options_.settle_after || seen >= static_cast<int>(order_.size())) return false;
    const auto half = second_half(looks_);
    return half && settled(*half);
  }

  void make_scales() {
    if (options_.estimator.method == "attention_mse") {
      EstimatorOptions absmax = options_.estimator;
      absmax.method = "absmax";
      absmax.round = "none";
      errors_.emplace(attention_shape(), estimate_scales(*result_.statistics, absmax));
    } else {
      result_.scales = estimate_scales(*result_.statistics, options_.estimator);
    }
    if (options_.probabilities && options_.estimator.method != "vllm") {
      result_.probabilities = std::make_unique<AttentionProbabilities>(attention_shape());
    }
    if (errors_ || result_.probabilities) look_at_attention();
    result_.scales.samples = tokens_;
  }

  StatisticsShape attention_shape() const {
    StatisticsShape shape = options_.shape;
    shape.query_heads = options_.query_heads;
    return shape;
  }

  /// The first requests once more, one at a time, so that its K, V and Q are known to be a request's.
  void look_at_attention() {
    KeptRequest kept(attention_shape());
    const auto run = open_(kept);
    const std::size_t count = std::min(order_.size(), static_cast<std::size_t>(options_.attention_requests));
    std::vector<Look> looks;
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < count; ++i) {
      run->submit(*order_[i]);
      while (!run->idle()) {
        if (interrupted()) {
          result_.cancelled = true;
          return;
        }
        run->step();
      }
      tokens += kept.tokens();
      if (result_.probabilities) result_.probabilities->add(kept, *options_.pool);
      if (errors_) errors_->add(kept, *options_.pool);
      const bool quarter = 4 * (i + 1) / count > 4 * i / count;
      if (errors_ && quarter) looks.push_back({static_cast<int>(i) + 1, tokens, attention_scales()});
      kept.forget();
    }
    if (!errors_) return;
    result_.scales = looks.back().scales;
    result_.movements.push_back(movement_of(options_.estimator.method, looks));
  }

  ScaleSet attention_scales() const {
    ScaleSet scales = errors_->best_scales();
    scales.method = method_text(options_.estimator);
    round_scales(scales, options_.estimator);
    return scales;
  }

  const OpenRun& open_;
  std::span<const Request> requests_;
  const CalibratorOptions& options_;
  EstimatorOptions trace_estimator_;
  std::vector<const Request*> order_;
  std::vector<Look> looks_;
  std::int64_t tokens_ = 0;
  std::optional<AttentionError> errors_;  // method attention_mse
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
