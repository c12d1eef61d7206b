#include "sweep/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "measure/experiment.h"
#include "sweep/folder.h"
#include "sweep/worker.h"

namespace qwenbench::sweep {
namespace {

using Clock = std::chrono::steady_clock;

/// Progress over all cells in predicted seconds, corrected by how wrong the predictions were so far.
class SweepProgress {
 public:
  SweepProgress(std::ostream& err, ProgressStyle style, std::vector<double> predicted)
      : predicted_(std::move(predicted)), err_(err), style_(style) {
    double all = 0;
    for (double& seconds : predicted_) all += seconds = std::max(seconds, 0.1);
    progress_.emplace(err, style, "sweep", static_cast<std::int64_t>(all * kUnits));
  }

  void start(std::size_t cell, const std::string& label) {
    open_ = cell;
    started_ = Clock::now();
    if (style_ == ProgressStyle::kLines) err_ << fmt::format("cell {} of {}: {}\n", ++begun_, predicted_.size(), label);
    err_.flush();
  }

  void tick() {
    if (!open_) return;
    const double passed = std::chrono::duration<double>(Clock::now() - started_).count() / pace_;
    set(done_ + std::min(passed, 0.95 * predicted_[*open_]));
  }

  void end(double seconds) {
    done_ += predicted_[*open_];
    spent_ += seconds;
    pace_ = std::max(1e-3, spent_ / done_);
    open_.reset();
    set(done_);
  }

 private:
  static constexpr double kUnits = 100;

  void set(double seconds) { progress_->set(static_cast<std::int64_t>(seconds * kUnits)); }

  std::vector<double> predicted_;
  std::ostream& err_;
  ProgressStyle style_;
  std::optional<Progress> progress_;
  std::optional<std::size_t> open_;
  Clock::time_point started_;
  std::size_t begun_ = 0;
  double done_ = 0, spent_ = 0, pace_ = 1;
};

class Runner {
 public:
  Runner(const profile::Sweep& sweep, const SweepRunOptions& options, std::ostream& err)
      : sweep_(sweep), options_(options), err_(err) {}

  SweepRunOutcome run() {
    claim_folder(options_.folder, sweep_);
    find_pending();
    if (pending_.empty()) return outcome_;
    for (const std::size_t cell : pending_) remove_leftovers(sweep_.cells[cell].id);
    std::vector<double> predicted;
    for (const std::size_t cell : pending_) {
      predicted.push_back(options_.predict_seconds ? options_.predict_seconds(sweep_.cells[cell].profile) : 1);
    }
    progress_.emplace(err_, options_.progress, std::move(predicted));
    for (std::size_t begin = 0, end = 0; begin < pending_.size() && !outcome_.cancelled; begin = end) {
      while (end < pending_.size() && key(pending_[end]) == key(pending_[begin])) ++end;
      run_group(begin, end - begin);
    }
    progress_.reset();
    return outcome_;
  }

 private:
  std::string key(std::size_t cell) const { return measure::weights_key(sweep_.cells[cell].profile); }

  /// Cells of this shard without a result, those with the same weights beside each other.
  void find_pending() {
    const std::vector<CellResult> known = read_cells(options_.folder, sweep_, false);
    std::map<std::string, std::size_t> order;
    for (std::size_t i = 0; i < sweep_.cells.size(); ++i) {
      if (!options_.shard.holds(i)) continue;
      order.try_emplace(key(i), order.size());
      if (!known[i].done()) {
        pending_.push_back(i);
      } else if (options_.resume) {
        ++outcome_.kept;
      } else {
        throw InputError(
            fmt::format("{} has results of this sweep already: go on with --resume, or name another folder "
                        "with -o",
                        options_.folder.string()));
      }
    }
    std::stable_sort(pending_.begin(), pending_.end(),
                     [&](std::size_t a, std::size_t b) { return order.at(key(a)) < order.at(key(b)); });
  }

  /// Temporary files that a kill left beside a cell's result file.
  void remove_leftovers(const std::string& id) const {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(options_.folder / "cells", error)) {
      if (!entry.path().filename().string().starts_with(id + ".json.")) continue;
      std::error_code ignored;
      std::filesystem::remove(entry.path(), ignored);
    }
  }

  void run_group(std::size_t begin, std::size_t count) {
    measure::SharedModel shared;  // filled in the child alone
    WorkerOptions worker;
    worker.run = [&](std::size_t i) { return run_cell(sweep_.cells[pending_[begin + i]], shared); };
    worker.on_start = [&](std::size_t i) {
      progress_->start(begin + i, describe_cell(sweep_, sweep_.cells[pending_[begin + i]]));
    };
    worker.on_end = [&](std::size_t i, const CellOutcome& outcome) {
      note(sweep_.cells[pending_[begin + i]], outcome);
    };
    worker.on_tick = [&] { progress_->tick(); };
    run_in_child(count, worker);
    outcome_.cancelled |= interrupted();
  }

  int run_cell(const profile::Cell& cell, measure::SharedModel& shared) const {
    measure::RunOptions run;
    run.output = cell_file(options_.folder, cell.id);
    run.progress = ProgressStyle::kNone;
    run.cli_command = options_.cli_command;
    run.shared = &shared;
    std::ostringstream out, err;
    return measure::run_experiment(cell.profile, run, out, err);
  }

  /// In the parent, when a cell has ended.
  void note(const profile::Cell& cell, const CellOutcome& outcome) {
    progress_->end(outcome.seconds);
    const std::filesystem::path failure = failure_file(options_.folder, cell.id);
    if (outcome.exit_code == static_cast<int>(ExitCode::kCancelled)) {
      outcome_.cancelled = true;
    } else if (outcome.exit_code == 0 || outcome.exit_code == static_cast<int>(ExitCode::kRegression)) {
      ++outcome_.finished;
      std::error_code ignored;
      std::filesystem::remove(failure, ignored);
    } else {
      ++outcome_.failed;
      report::write_cell_failure(failure, {outcome.exit_code, outcome.message});
      err_ << fmt::format("qwenbench: cell {} failed: {}\n", describe_cell(sweep_, cell), outcome.message);
    }
  }

  const profile::Sweep& sweep_;
  const SweepRunOptions& options_;
  std::ostream& err_;
  std::vector<std::size_t> pending_;
  std::optional<SweepProgress> progress_;
  SweepRunOutcome outcome_;
};

}  // namespace

SweepRunOutcome run_sweep(const profile::Sweep& sweep, const SweepRunOptions& options, std::ostream& err) {
  return Runner(sweep, options, err).run();
}

}  // namespace qwenbench::sweep
