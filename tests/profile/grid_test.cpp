#include "profile/grid.h"

#include <doctest/doctest.h>

#include <set>

#include "base/error.h"

using namespace qwenbench;
using namespace qwenbench::profile;

namespace {

Sweep sweep_of(const std::string& more, const std::vector<std::string>& overrides = {}) {
  return parse_sweep("{\"model\": \"m\", " + more + "}", "test.json", {}, overrides);
}

}  // namespace

TEST_CASE("sweep: the product of the axes, the last one fastest") {
  const Sweep sweep = sweep_of(R"("axes": {"engine.max_num_seqs": [4, 8], "engine.block_size": [16, 32, 64]})");
  REQUIRE(sweep.cells.size() == 6);
  CHECK(sweep.cells[1].profile.engine.max_num_seqs == 4);
  CHECK(sweep.cells[1].profile.engine.block_size == 32);
  CHECK(sweep.cells[5].profile.engine.max_num_seqs == 8);
  CHECK(describe_cell(sweep, sweep.cells[5]) == "max_num_seqs=8 block_size=64");
  std::set<std::string> ids;
  for (const Cell& cell : sweep.cells) ids.insert(cell.id);
  CHECK(ids.size() == 6);
  // A cell's id does not depend on what else is swept over.
  const Sweep fewer = sweep_of(R"("axes": {"engine.max_num_seqs": [8], "engine.block_size": [64]})");
  CHECK(fewer.cells[0].id == sweep.cells[5].id);
  CHECK(fewer.hash != sweep.hash);
  CHECK(sweep_of(R"("axes": {"engine.max_num_seqs": [8], "engine.block_size": [64]}, "objective": {"metric": "x"})")
            .hash == fewer.hash);
}

TEST_CASE("sweep: linked fields, variants, overrides and excludes") {
  const Sweep sweep = sweep_of(R"("axes": {
      "memory": {"small": {"engine.block_size": 16, "engine.max_num_seqs": 4}, "large": {"engine.block_size": 64}},
      "variants.baseline.kv_scales": ["unit", "calibrate"], "engine.enable_prefix_caching": [false, true]},
    "exclude": [{"memory": "small", "engine.enable_prefix_caching": true}])",
                               {"engine.max_model_len=100"});
  REQUIRE(sweep.cells.size() == 6);
  CHECK(sweep.cells[0].profile.engine.block_size == 16);
  CHECK(sweep.cells[0].profile.engine.max_num_seqs == 4);
  CHECK(sweep.cells[0].profile.engine.max_model_len == 100);
  CHECK(sweep.cells[2].profile.engine.block_size == 64);
  CHECK(sweep.cells[2].profile.engine.max_num_seqs == EngineOptions{}.max_num_seqs);
  CHECK(sweep.cells[1].profile.variants.at(1).kv_scales == "calibrate");
  CHECK(sweep.cells[3].profile.engine.enable_prefix_caching);
}

TEST_CASE("sweep: objective, constraints, Pareto metrics") {
  const Sweep sweep = sweep_of(R"("axes": {"engine.max_num_seqs": [4]},
    "objective": {"metric": "median_ttft_ms", "variant": "baseline"},
    "constraints": [{"metric": "ttft_ms", "stat": "p50", "max": 100}], "pareto": ["ppl", "kld_mean"])");
  CHECK(sweep.objective.metric == "median_ttft_ms");
  CHECK(sweep.objective.variant == "baseline");
  REQUIRE(sweep.constraints.size() == 1);
  CHECK(*sweep.constraints[0].max == 100);
  CHECK(sweep.cells[0].profile.slo.empty());
  CHECK(sweep.pareto == std::vector<std::string>{"ppl", "kld_mean"});
}

TEST_CASE("sweep: what is refused, in one line that names it") {
  const std::pair<const char*, const char*> cases[] = {
      {R"("engine": {})", "no axes"},
      {R"("axes": {})", "axes must be an object"},
      {R"("axes": [1])", "axes must be an object"},
      {R"("axes": {"engine.max_num_seqs": []})", "has no value"},
      {R"("axes": {"engine.max_num_seqs": 4})", "must be a list"},
      {R"("axes": {"engine.max_num_seqs": [4, 4]})", "twice"},
      {R"("axes": {"engine.max_num_seq": [4]})", "did you mean engine.max_num_seqs"},
      {R"("axes": {"engine.max_num_seqs": [0]})", "cell max_num_seqs=0"},
      {R"("axes": {"linked": {"a": 4}})", "must be an object of fields"},
      {R"("axes": {"engine.max_num_seqs": [4]}, "exclude": {})", "exclude must be a list"},
      {R"("axes": {"engine.max_num_seqs": [4]}, "exclude": [{"x": 1}])", "is no axis"},
      {R"("axes": {"engine.max_num_seqs": [4]}, "exclude": [{"engine.max_num_seqs": 5}])", "never is 5"},
      {R"("axes": {"engine.max_num_seqs": [4]}, "exclude": [{"engine.max_num_seqs": 4}])", "leaves no cell"},
      {R"("axes": {"engine.max_num_seqs": [4]}, "objective": "x")", "objective must be"},
      {R"("axes": {"engine.max_num_seqs": [4]}, "objective": {"goal": "x"})", "not goal"},
      {R"("axes": {"engine.max_num_seqs": [4]}, "constraints": [{"max": 4}])", "constraints[0] names no metric"},
      {R"("axes": {"engine.max_num_seqs": [4]}, "pareto": ["ppl"])", "two metrics"},
      {R"("axes": {"engine.max_num_seqs": [4]}, "axis": 1)", "unknown key axis"}};
  for (const auto& [text, part] : cases) {
    CAPTURE(text);
    CHECK_THROWS_WITH_AS(sweep_of(text), doctest::Contains(part), InputError);
  }
  std::string values = "0";
  for (int i = 1; i < 101; ++i) values += "," + std::to_string(i);
  CHECK_THROWS_WITH_AS(
      sweep_of(R"("axes": {"workload.seed": [)" + values + R"(], "workload.top_k": [)" + values + "]}"),
      doctest::Contains("more than 10000 cells"), InputError);
  CHECK_THROWS_WITH_AS(parse_profile(R"({"model": "m", "axes": {}})", "x.json", {}),
                       doctest::Contains("qwenbench sweep"), InputError);
}
