// Teacher-forced logits in a safetensors file, to be compared with those of another program. For request i of the
// quality set, in its order (five digits or more, zero-filled):
//   requests.00000.input_ids  I64 [length]        the whole sequence: prompt (image pads expanded), then forced tokens
//   requests.00000.logits     F32 [rows, vocab]   row r predicts input_ids[length - rows + r]
// Metadata: format "qwenbench-logits-1", and whatever the writer adds ("model_fingerprint", "variant").
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "quality/quality.h"
#include "quality/reference.h"

namespace qwenbench::quality {

/// Scores with `variant` and writes as it goes: one block of hidden states and one tile of logits are in memory. Throws
/// InputError where the file cannot be written, Error(kCancelled) after Ctrl-C; nothing is left behind then.
void save_logits(const std::filesystem::path& path, std::span<const workload::Request> requests,
                 const ScoredVariant& variant, const ScoringOptions& options,
                 std::map<std::string, std::string> metadata);

/// Opens such a file, of any writer, by mmap. Throws InputError naming file and request: another number of requests,
/// other ids, another number of rows, another vocabulary.
std::unique_ptr<ReferenceRows> open_logits(const std::filesystem::path& path,
                                           std::span<const workload::Request> requests, int vocab_size);

}  // namespace qwenbench::quality
