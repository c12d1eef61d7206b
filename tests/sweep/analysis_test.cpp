// Champion, front and sensitivity of cells whose numbers are known.
#include "sweep/analysis.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "compare/files_synthetic.h"
#include "sweep/summary.h"

using namespace qwenbench;
using namespace qwenbench::sweep;
using synthetic::RunOf;

namespace {

profile::Sweep sweep_of(const std::string& more = "") {
  return profile::parse_sweep(R"({"model": "m", "quality": {"ceiling": {"kld_mean": 0.02}}, "axes": {
      "engine.max_num_seqs": [8, 16], "engine.block_size": [16, 32]})" +
                                  more + "}",
                              "test.json", {});
}

CellResult cell_of(const profile::Sweep& sweep, std::size_t index, RunOf run) {
  run.seed = 300 + index;
  CellResult result;
  result.id = sweep.cells[index].id;
  report::Result measured = synthetic::result_of(run);
  for (std::size_t i = 1; i < measured.variants.size(); ++i) measured.variants[i].name = "baseline";
  result.runs = compare::runs_of(std::move(measured), {"x.json", "", ""}, {});
  return result;
}

/// max_num_seqs 16 is 1.25 times as fast as 8; block_size changes nothing.
std::vector<CellResult> cells_of(const profile::Sweep& sweep) {
  return {cell_of(sweep, 0, {}), cell_of(sweep, 1, {}), cell_of(sweep, 2, {.slow = 0.8}),
          cell_of(sweep, 3, {.slow = 0.8})};
}

const Effect& effect(const Analysis& analysis, const std::string& axis, const std::string& metric) {
  for (const Effect& one : analysis.effects) {
    if (one.axis == axis && one.metric == metric) return one;
  }
  FAIL("no effect of " << axis << " on " << metric);
  return analysis.effects.front();
}

}  // namespace

TEST_CASE("sweep: sensitivity with intervals that hold the truth") {
  const auto sweep = sweep_of();
  const auto cells = cells_of(sweep);
  const Analysis analysis = analyse(sweep, cells, nullptr);
  const Effect& seqs = effect(analysis, "engine.max_num_seqs", "output_throughput");
  CHECK(seqs.pairs == 2);
  CHECK(seqs.from == "8");
  CHECK(seqs.to == "16");
  CHECK(seqs.relative);
  CHECK(seqs.low < 0.25);
  CHECK(seqs.high > 0.25);
  CHECK(seqs.low > 0.2);
  const Effect& block = effect(analysis, "engine.block_size", "output_throughput");
  CHECK(block.low < 0);
  CHECK(block.high > 0);
  CHECK(effect(analysis, "engine.block_size", "kld_mean").change == 0);
  CHECK_FALSE(effect(analysis, "engine.block_size", "kld_mean").relative);
}

TEST_CASE("sweep: the champion, and who cannot be told from it") {
  const auto sweep = sweep_of(R"(, "objective": {"metric": "output_throughput", "variant": "baseline"})");
  const auto cells = cells_of(sweep);
  const Analysis analysis = analyse(sweep, cells, nullptr);
  REQUIRE(analysis.champion);
  const Candidate& champion = analysis.candidates[*analysis.champion];
  CHECK(champion.cell >= 2);
  CHECK(champion.run->variant->name == "baseline");
  for (std::size_t i = 0; i < analysis.candidates.size(); ++i) {
    const Candidate& candidate = analysis.candidates[i];
    const bool equal = candidate.cell >= 2 && candidate.run->variant->name == "baseline" && i != *analysis.champion;
    CHECK(candidate.tied == equal);
  }
}

TEST_CASE("sweep: constraints, slo and the ceiling") {
  auto sweep = sweep_of(R"(, "constraints": [{"metric": "ttft_ms", "stat": "p50", "max": 110}])");
  auto cells = cells_of(sweep);
  Analysis analysis = analyse(sweep, cells, nullptr);
  CHECK_FALSE(analysis.candidates[0].violations.empty());  // 117 ms at slow = 1, 94 ms at 0.8
  CHECK(analysis.candidates.back().violations.empty());
  CHECK(analysis.champion);
  sweep = sweep_of(R"(, "constraints": [{"metric": "ttft_ms", "stat": "p50", "max": 1}])");
  analysis = analyse(sweep, cells, nullptr);
  CHECK_FALSE(analysis.champion);
  // Beyond the quality ceiling: the fastest is no champion.
  sweep = sweep_of(R"(, "objective": {"metric": "output_throughput", "variant": "baseline"})");
  cells[2] = cell_of(sweep, 2, {.slow = 0.5, .kld = 0.5});
  analysis = analyse(sweep, cells, nullptr);
  CHECK(analysis.candidates[*analysis.champion].cell == 3);
}

TEST_CASE("sweep: the Pareto front") {
  const auto sweep = sweep_of(R"(, "pareto": ["output_throughput", "kld_mean"])");
  std::vector<CellResult> cells{cell_of(sweep, 0, {.kld = 0.001}),
                                cell_of(sweep, 1, {.slow = 0.5, .kld = 0.01}),
                                cell_of(sweep, 2, {.slow = 0.7, .kld = 0.02}),
                                {sweep.cells[3].id, {}, {}}};
  for (CellResult& cell : cells) {
    std::erase_if(cell.runs, [](const compare::Run& run) { return run.variant->name == "reference"; });
  }
  const Analysis analysis = analyse(sweep, cells, nullptr);
  REQUIRE(analysis.candidates.size() == 3);
  CHECK(analysis.candidates[0].on_front);        // the best quality
  CHECK(analysis.candidates[1].on_front);        // the fastest
  CHECK_FALSE(analysis.candidates[2].on_front);  // slower than 1, and worse
}

TEST_CASE("sweep: the summaries agree, and name cells without a result") {
  const auto sweep = sweep_of();
  auto cells = cells_of(sweep);
  cells[1].runs.clear();
  cells[1].failure = report::CellFailure{5, "out of memory, \"killed\""};
  const Analysis analysis = analyse(sweep, cells, nullptr);
  const auto json = nlohmann::json::parse(summary_json(sweep, cells, analysis));
  CHECK(json["candidates"].size() == 6);
  CHECK(json["failed"][0]["message"] == "out of memory, \"killed\"");
  std::istringstream csv(summary_csv(sweep, cells, analysis));
  std::string line;
  std::getline(csv, line);
  CHECK(line.starts_with("cell,engine.max_num_seqs,engine.block_size,variant,status,message,output_throughput"));
  const auto columns = std::count(line.begin(), line.end(), ',');
  int rows = 0, champions = 0;
  while (std::getline(csv, line)) {
    ++rows;
    champions += line.ends_with(",true\r");
    const bool quoted = line.find('"') != std::string::npos;
    CHECK(std::count(line.begin(), line.end(), ',') == columns + quoted);
  }
  CHECK(rows == 7);
  CHECK(champions == 1);
  CHECK(summary_text(sweep, cells, analysis).find("out of memory") != std::string::npos);
}

TEST_CASE("sweep: names are checked before anything runs") {
  CHECK_THROWS_AS(check_names(sweep_of(R"(, "objective": {"metric": "speed"})")), InputError);
  CHECK_THROWS_AS(check_names(sweep_of(R"(, "objective": {"variant": "nobody"})")), InputError);
  CHECK_THROWS_AS(check_names(sweep_of(R"(, "pareto": ["speed", "ppl"])")), InputError);
  CHECK_THROWS_AS(check_names(sweep_of(R"(, "constraints": [{"metric": "speed", "max": 1}])")), InputError);
  CHECK_NOTHROW(check_names(sweep_of()));
}
