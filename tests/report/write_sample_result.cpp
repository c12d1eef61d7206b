// Writes real output for the schema test: write_sample_result FOLDER.
#include <filesystem>

#include "report/result_file.h"
#include "report/sample_result.h"

int main(int, char** args) {
  const std::filesystem::path folder = args[1];
  qwenbench::report::Result result = sample_result();
  qwenbench::report::write_result(folder / "full.json", result);
  result.engine.weights = "dummy";
  qwenbench::report::write_result(folder / "dummy.json", result);
  qwenbench::report::Result empty;
  empty.was_cancelled = true;
  qwenbench::report::write_result(folder / "cancelled.json", empty);
}
