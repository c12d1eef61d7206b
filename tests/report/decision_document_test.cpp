// Golden file: QWENBENCH_UPDATE_GOLDEN=1 writes it anew; read the difference before committing it.
#include "report/decision_document.h"

#include <doctest/doctest.h>

#include <cstdlib>

#include "base/atomic_file.h"
#include "report/sample_result.h"

using namespace qwenbench;

TEST_CASE("decision document: golden") {
  const std::string text = report::render_decision(sample_result(), "results/sample.json");
  if (std::getenv("QWENBENCH_UPDATE_GOLDEN")) write_file_atomically("report/data/decision.md", text);
  CHECK(text == read_file("report/data/decision.md"));
}

TEST_CASE("decision document: every verdict, none, and nothing measured") {
  report::Result result = sample_result();
  for (const char* status : {"adopt-calibrated", "accept-baseline", "reject-fp8", "inconclusive"}) {
    result.verdict = report::Verdict{status, {"because"}};
    const std::string text = report::render_decision(result, "r.json");
    CHECK(text.find(std::string("**Verdict: ") + status + ".**") != std::string::npos);
    CHECK(text.find("- because") != std::string::npos);
  }
  result.verdict.reset();
  CHECK(report::render_decision(result, "r.json").find("nothing is decided") != std::string::npos);
  const std::string bare = report::render_decision(report::Result{}, "r.json");
  CHECK(bare.find("no request with a picture was scored") != std::string::npos);
}

TEST_CASE("decision document: names from outside cannot break the page") {
  report::Result result = sample_result();
  result.engine.model = "a|b\n# c <script>";
  const std::string text = report::render_decision(result, "r.json");
  CHECK(text.find("\n# c") == std::string::npos);
  CHECK(text.find(" <script>") == std::string::npos);
}
