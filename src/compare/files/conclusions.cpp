#include "compare/files/conclusions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "stats/decision.h"

namespace qwenbench::compare {
namespace {

class Conclusions {
 public:
  Conclusions(const Grid& grid, const std::vector<Match>& matches, const FileCompareOptions& options,
              FileComparison& result)
      : grid_(grid), matches_(matches), options_(options), result_(result) {}

  void run() {
    accept();
    check_slo();
    note_unmatched();
    note_quality();
    note_units();
  }

 private:
  // ---- acknowledged regressions ----

  void accept() {
    std::vector<bool> used(options_.accepted.size());
    for (Line& line : result_.lines) {
      for (Line::Entry& entry : line.entries) {
        if (!entry.change || entry.change->verdict != "regression") continue;
        for (std::size_t i = 0; i < options_.accepted.size(); ++i) {
          const report::Acceptance& acceptance = options_.accepted[i];
          if (acceptance.metric != line.metric || (!acceptance.row.empty() && acceptance.row != line.row)) continue;
          used[i] = true;
          accept_one(acceptance, line, entry);
        }
      }
    }
    for (std::size_t i = 0; i < used.size(); ++i) {
      const report::Acceptance& acceptance = options_.accepted[i];
      if (!used[i] && acceptance.metric != "slo") {
        result_.notes.push_back(fmt::format("the accepted regression of {} ({}) is none any more: take it off the list",
                                            acceptance.metric, one_line(acceptance.reason, 80)));
      }
    }
  }

  void accept_one(const report::Acceptance& acceptance, const Line& line, Line::Entry& entry) {
    const std::string what = fmt::format("{} of {}", line.metric, line.row);
    if (acceptance.expires < options_.today) {
      result_.notes.push_back(fmt::format("{}: the acceptance ended on {} ({})", what, acceptance.expires,
                                          one_line(acceptance.reason, 80)));
    } else if (acceptance.up_to && std::abs(*entry.change->change) > *acceptance.up_to) {
      result_.notes.push_back(fmt::format("{}: worse than the {:g} that was accepted ({})", what, *acceptance.up_to,
                                          one_line(acceptance.reason, 80)));
    } else {
      entry.accepted = acceptance;
    }
  }

  // ---- slo ----

  static const report::SloResult* failed_in(const Cell& cell, const report::SloLimit& limit) {
    for (const Run* run : cell) {
      for (const report::SloResult& slo : run->result->slo) {
        const bool same = slo.variant == run->variant->name && slo.limit.metric == limit.metric &&
                          slo.limit.stat == limit.stat && slo.limit.max == limit.max && slo.limit.min == limit.min;
        if (same && !slo.pass) return &slo;
      }
    }
    return nullptr;
  }

  bool slo_accepted(const std::string& row) const {
    return std::any_of(options_.accepted.begin(), options_.accepted.end(), [&](const report::Acceptance& acceptance) {
      return acceptance.metric == "slo" && (acceptance.row.empty() || acceptance.row == row) &&
             acceptance.expires >= options_.today;
    });
  }

  void check_slo() {
    for (const Match& match : matches_) {
      const Run& first = *match.other->front();
      for (const report::SloResult& slo : first.result->slo) {
        if (slo.variant != first.variant->name || slo_accepted(grid_.rows[match.row])) continue;
        const report::SloResult* failed = failed_in(*match.other, slo.limit);
        if (failed == nullptr) continue;
        std::string text = slo.limit.metric;
        if (!slo.limit.stat.empty()) text += fmt::format(" {}", slo.limit.stat);
        if (slo.limit.max) text += fmt::format(" <= {:g}", *slo.limit.max);
        if (slo.limit.min) text += fmt::format(" >= {:g}", *slo.limit.min);
        text += failed->observed ? fmt::format(": {:.4g}", *failed->observed) : ": not measured";
        result_.failed_slo.push_back(
            {grid_.rows[match.row], grid_.columns[match.column], text, failed_in(*match.base, slo.limit) != nullptr});
      }
    }
  }

  // ---- what weakens the comparison ----

  void note_units() {
    bool single = false, known = false, several = false;
    for (const Match& match : matches_) {
      const bool one_process = same_run(*match.base->front(), *match.other->front());
      if (one_process) continue;
      if (match.base->size() == 1 && match.other->size() == 1) {
        single = true;
        const std::string metric = "output_throughput";
        known |= noise_of(options_.noise ? &*options_.noise : nullptr, *match.base->front(), metric).measured;
      } else {
        several = true;
      }
    }
    if (single && has_timing()) {
      result_.notes.push_back(
          known ? "one file a side: weak evidence on timings; the host's known noise between runs is taken into account"
                : "one file a side: weak evidence on timings; a deviation of 1 % between runs of one build is assumed "
                  "(measure it with compare --noise, or give several files a side)");
    }
    if (several) note_undecidable();
  }

  /// Quality that one side alone has, or of which only a part can be paired.
  void note_quality() {
    for (const Match& match : matches_) {
      const auto &base = match.base->front()->variant->quality, &other = match.other->front()->variant->quality;
      if (!base && !other) continue;
      const std::string& row = grid_.rows[match.row];
      const std::string where = fmt::format("{}{}in {}", row, row.empty() ? "" : " ", grid_.columns[match.column]);
      if (!base || !other) {
        const bool reference_only = same_run(*match.base->front(), *match.other->front());
        if (!reference_only) {
          result_.notes.push_back(fmt::format("quality of {} was measured on one side only: not compared", where));
        }
        continue;
      }
      std::set<std::string> ids;
      for (const report::QualityRequest& request : base->requests) {
        if (request.n_tokens > 0) ids.insert(request.id);
      }
      std::size_t scored = 0, shared = 0;
      for (const report::QualityRequest& request : other->requests) {
        scored += request.n_tokens > 0;
        shared += request.n_tokens > 0 && ids.contains(request.id);
      }
      const std::size_t most = std::max(ids.size(), scored);
      if (shared < most) {
        result_.notes.push_back(
            fmt::format("quality of {}: {} of {} scored requests stand on both sides", where, shared, most));
      }
    }
  }

  bool has_timing() const {
    return std::any_of(result_.lines.begin(), result_.lines.end(), [](const Line& line) {
      return std::any_of(line.entries.begin(), line.entries.end(), [](const Line::Entry& entry) {
        return entry.change && entry.change->test.starts_with("t on log ratios");
      });
    });
  }

  /// Too few files for any p that passes the correction: how many would do.
  void note_undecidable() {
    std::size_t lines = 0;
    std::int64_t files = 0;
    for (const Line& line : result_.lines) {
      for (const Line::Entry& entry : line.entries) {
        if (!entry.change || entry.change->could_decide || !entry.change->test.starts_with("Mann-Whitney")) continue;
        ++lines;
        files = std::max(files, entry.change->n);
      }
    }
    if (lines == 0) return;
    std::size_t needed = 2;
    while (needed < 100 &&
           stats::smallest_p_mann_whitney(needed, needed) * static_cast<double>(result_.tests) > options_.alpha)
      ++needed;
    result_.notes.push_back(fmt::format(
        "{} timing test{} could never have been decided: {} file{} a side cannot pass the correction over {} "
        "tests; {} a side could",
        lines, lines == 1 ? "" : "s", files, files == 1 ? "" : "s", result_.tests, needed));
  }

  void note_unmatched() {
    for (std::size_t row = 0; row < grid_.rows.size(); ++row) {
      std::vector<std::string> present;
      for (std::size_t column = 0; column < grid_.columns.size(); ++column) {
        if (grid_.cell(row, column) != nullptr) present.push_back(grid_.columns[column]);
      }
      if (present.size() == grid_.columns.size()) continue;
      result_.notes.push_back(fmt::format("{} stands only in {}: {}", grid_.rows[row], fmt::join(present, ", "),
                                          grid_.cell(row, 0) == nullptr ? "not compared" : "not compared elsewhere"));
    }
  }

  const Grid& grid_;
  const std::vector<Match>& matches_;
  const FileCompareOptions& options_;
  FileComparison& result_;
};

}  // namespace

void conclude(const Grid& grid, const std::vector<Match>& matches, const FileCompareOptions& options,
              FileComparison& result) {
  Conclusions(grid, matches, options, result).run();
}

}  // namespace qwenbench::compare
