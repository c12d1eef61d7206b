// Runs a calibration set through the engine and looks at every K and V that the cache stores.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "calibration/kv_statistics.h"
#include "engine/session.h"
#include "workload/request.h"

namespace qwenbench::calibration {

/// What one step did.
struct CalibrationStep {
  std::vector<engine::RequestId> ended;
  int begun = 0;            // requests of which it is the first step
  std::int64_t tokens = 0;  // whose K and V it computed
};

/// What steps the requests: an engine::Session whose observer is the statistics, with a BF16 cache. For tests, a fake.
class CalibrationRun {
 public:
  virtual ~CalibrationRun() = default;
  virtual engine::RequestId submit(const workload::Request& request) = 0;
  virtual CalibrationStep step() = 0;
  virtual bool idle() const = 0;
  virtual void reset() = 0;
};

class SessionCalibrationRun : public CalibrationRun {
 public:
  explicit SessionCalibrationRun(std::unique_ptr<engine::Session> session) : session_(std::move(session)) {}
  engine::RequestId submit(const workload::Request& request) override { return session_->submit(request); }
  CalibrationStep step() override;
  bool idle() const override { return session_->idle(); }
  void reset() override { session_->reset(true); }

 private:
  std::unique_ptr<engine::Session> session_;
};

/// Opens a run whose steps show `observer` every K and V; the observer outlives it.
using OpenRun = std::function<std::unique_ptr<CalibrationRun>(backend::KvObserver& observer)>;

/// Prefills every request (text and pictures, through the cache; nothing is generated beyond what a request's
/// max_tokens says). `on_finished` is called after every request. Returns false where interrupted() ended it. Throws
/// InputError naming layer, token and request where K or V is NaN or infinite.
bool collect_statistics(CalibrationRun& run, KvStatistics& statistics, std::span<const workload::Request> requests,
                        const std::function<void()>& on_finished = {});

}  // namespace qwenbench::calibration
