// Golden files: QWENBENCH_UPDATE_GOLDEN=1 writes them anew; read the difference before committing it.
#include "report/table.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/atomic_file.h"
#include "report/sample_result.h"

using namespace qwenbench;

namespace {

void check_golden(const std::string& name, const std::string& text) {
  const std::string path = "report/data/" + name;
  if (std::getenv("QWENBENCH_UPDATE_GOLDEN")) write_file_atomically(path, text);
  CHECK(text == read_file(path));
}

std::size_t widest(const std::string& text) {
  std::istringstream lines(text);
  std::size_t most = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto continued = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
    most = std::max(most, line.size() - static_cast<std::size_t>(std::count_if(line.begin(), line.end(), continued)));
  }
  return most;
}

}  // namespace

TEST_CASE("table: golden") {
  const report::Result result = sample_result();
  check_golden("table.txt", report::render_table(result));
  check_golden("table.md", report::render_markdown(result));
  CHECK(widest(report::render_table(result)) <= 100);
}

TEST_CASE("table: colour only when asked, and nothing else changes") {
  const report::Result result = sample_result();
  CHECK(report::render_table(result).find('\x1b') == std::string::npos);
  std::string colored = report::render_table(result, {.color = true});
  CHECK(colored.find("\x1b[1m") != std::string::npos);
  for (const char* code : {"\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"}) {
    for (std::size_t at = 0; (at = colored.find(code, at)) != std::string::npos;)
      colored.erase(at, std::string(code).size());
  }
  CHECK(colored == report::render_table(result));
}

TEST_CASE("table: many variants, long and hostile names, nothing measured, dummy weights") {
  report::Result result = sample_result();
  result.variants.push_back(result.variants[2]);
  result.variants.push_back(result.variants[2]);
  result.variants[3].name = "a\x1b[31m very long name of a variant with escape codes";
  result.variants[4].name = "überlange Bezeichnung einer Variante";
  result.warnings[0].message = std::string(300, 'x') + "\nsecond line";
  const std::string text = report::render_table(result);
  CHECK(text.find('\x1b') == std::string::npos);
  result.warnings.clear();
  CHECK(widest(report::render_table(result)) <= 100);

  result.engine.weights = "dummy";
  result.verdict.reset();
  const std::string dummy = report::render_table(result);
  CHECK(dummy.find("KL divergence, mean") == std::string::npos);
  CHECK(dummy.find("Verdict: none") != std::string::npos);

  report::Result empty;
  CHECK(report::render_table(empty).find("Verdict: none") != std::string::npos);
  empty.variants.resize(2);
  CHECK(report::render_table(empty).find("TTFT, median (ms)") != std::string::npos);
  CHECK(report::render_markdown(empty).find("Verdict: none") != std::string::npos);
}
