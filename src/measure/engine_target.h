// A Session as a target, on the steady clock. What a step brings is stamped when the step ends: then the client could
// have seen it.
#pragma once

#include <memory>
#include <vector>

#include "backend/devices.h"
#include "engine/session.h"
#include "measure/target.h"

namespace qwenbench::measure {

class EngineTarget : public Target {
 public:
  /// `gpus`: those that the session runs on.
  explicit EngineTarget(std::unique_ptr<engine::Session> session, std::vector<backend::GpuInfo> gpus = {})
      : session_(std::move(session)), gpus_(std::move(gpus)) {}

  double now() override;
  Ticket submit(const workload::Request& request) override { return session_->submit(request); }
  void poll(double wake, TargetEvents& events) override;
  TargetCounters counters() const override;
  void reset() override { session_->reset(true); }

  engine::Session& session() { return *session_; }

 private:
  std::unique_ptr<engine::Session> session_;
  std::vector<backend::GpuInfo> gpus_;
};

}  // namespace qwenbench::measure
