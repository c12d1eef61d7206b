// Checkpoints that are not stored in the repository: rebuilt, bit for bit, from the recipe that the oracle used.
#pragma once

#include <filesystem>
#include <string>

namespace qwenbench::parity {

/// Writes the checkpoint tests/fixtures/parity/NAME (config.json, weights.txt and, where present,
/// quantized.safetensors) as a directory that model::open_checkpoint reads, once a process; removed when the process
/// ends. The format of weights.txt stands in scripts/fixtures/parity_weights.py.
std::filesystem::path checkpoint(const std::string& name);

}  // namespace qwenbench::parity
