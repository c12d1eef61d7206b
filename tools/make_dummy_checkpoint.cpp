// make-dummy-checkpoint CONFIG_DIR OUT_DIR: a checkpoint of a config's shapes with random weights, so that loading can
// be measured where the real one is not.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/error.h"
#include "base/progress.h"
#include "model/weights.h"

using namespace qwenbench;

int main(int argc, char** argv) {
  CLI::App app(
      "Writes a checkpoint of random weights in the shapes and the quantization that CONFIG_DIR/config.json says");
  std::string config, out;
  std::uint64_t seed = 0;
  std::size_t shard_mib = 4096;
  app.add_option("CONFIG_DIR", config, "e.g. datasets/models/qwen3-vl-32b-awq")->required();
  app.add_option("OUT_DIR", out, "made where it does not exist")->required();
  app.add_option("--seed", seed);
  app.add_option("--shard-mib", shard_mib, "largest file")->check(CLI::Range(1, 1 << 20));
  CLI11_PARSE(app, argc, argv);
  try {
    std::size_t written = 0;
    model::write_dummy_checkpoint(config, out, seed, shard_mib << 20, [&](std::size_t bytes) {
      written += bytes;
      std::cerr << fmt::format("{:.2f} GB written\n", static_cast<double>(written) * 1e-9);
    });
    return 0;
  } catch (const Error& error) {
    std::cerr << "make-dummy-checkpoint: error: " << error.what() << "\n";
    return static_cast<int>(error.code());
  }
}
