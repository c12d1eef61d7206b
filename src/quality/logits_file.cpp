#include "quality/logits_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "model/safetensors.h"

namespace qwenbench::quality {
namespace {

using workload::Request;

// One width for all names: a file is written in the order of its names, and that must be the order of scoring.
std::string tensor_name(std::size_t request, std::size_t requests, const char* what) {
  return fmt::format("requests.{:0{}}.{}", request, std::max<std::size_t>(5, std::to_string(requests).size()), what);
}

std::vector<std::int64_t> sequence_of(const Request& request) {
  std::vector<std::int64_t> ids(request.prompt.begin(), request.prompt.end());
  ids.insert(ids.end(), request.forced.begin(), request.forced.end());
  return ids;
}

/// Scores a block when the first of its requests is asked for. Requests are asked for in order.
class LazyBlocks {
 public:
  LazyBlocks(std::span<const Request> requests, const ScoredVariant& variant, const ScoringOptions& options)
      : requests_(requests),
        variant_(variant),
        options_(options),
        begins_(blocks_of(requests, options.hidden_size, options.block_bytes)) {}

  const HiddenReference& holding(std::size_t request) {
    while (!rows_ || request >= begins_[next_]) advance();
    return *rows_;
  }

 private:
  void advance() {
    const std::size_t begin = begins_[next_];
    const std::span<const Request> block = requests_.subspan(begin, begins_[next_ + 1] - begin);
    ++next_;
    rows_.reset();
    rows_.emplace(block, begin, options_.hidden_size, options_.logits);
    const bool complete = variant_.open()->score(
        block,
        [&](std::size_t index, int first, std::span<const float> hidden) { rows_->store(index, first, hidden); });
    if (!complete) throw Error(ExitCode::kCancelled, "cancelled while logits were saved");
  }

  std::span<const Request> requests_;
  const ScoredVariant& variant_;
  const ScoringOptions& options_;
  std::vector<std::size_t> begins_;
  std::size_t next_ = 0;
  std::optional<HiddenReference> rows_;
};

class FileReference : public ReferenceRows {
 public:
  FileReference(const std::filesystem::path& path, std::span<const Request> requests, int vocab)
      : file_(path), vocab_(vocab) {
    if (file_.header().tensors.size() != 2 * requests.size()) {
      throw InputError(fmt::format("{}: holds {} requests, the quality set has {}; score the same set", file_.path(),
                                   file_.header().tensors.size() / 2, requests.size()));
    }
    for (std::size_t i = 0; i < requests.size(); ++i) add(i, requests[i], requests.size());
  }

  std::vector<float> logits(std::size_t request, int first, int rows) const override {
    std::vector<float> out(static_cast<std::size_t>(rows) * static_cast<std::size_t>(vocab_));
    const std::size_t begin = static_cast<std::size_t>(first) * static_cast<std::size_t>(vocab_) * sizeof(float);
    std::memcpy(out.data(), views_[request].data + begin, out.size() * sizeof(float));
    return out;
  }

 private:
  void add(std::size_t index, const Request& request, std::size_t requests) {
    const auto fail = [&](const std::string& what) {
      throw InputError(fmt::format("{}: request {} ({}): {}", file_.path(), index, request.id, what));
    };
    const auto ids = file_.find(tensor_name(index, requests, "input_ids"));
    const auto logits = file_.find(tensor_name(index, requests, "logits"));
    if (!ids || !logits) fail("missing; names are requests.00000.input_ids and requests.00000.logits");
    const std::vector<std::int64_t> expected = sequence_of(request);
    if (ids->dtype != DType::kI64 ||
        ids->shape != std::vector<std::int64_t>{static_cast<std::int64_t>(expected.size())} ||
        std::memcmp(ids->data, expected.data(), ids->bytes()) != 0) {
      fail("its input_ids are not those of this quality set");
    }
    const std::vector<std::int64_t> shape{scored_rows(request), vocab_};
    if (logits->dtype != DType::kF32 || logits->shape != shape) {
      fail(fmt::format("logits must be F32 [{}, {}]: scored positions, vocabulary", shape[0], shape[1]));
    }
    views_.push_back(*logits);
  }

  model::SafetensorsFile file_;
  int vocab_;
  std::vector<model::TensorView> views_;
};

}  // namespace

void save_logits(const std::filesystem::path& path, std::span<const Request> requests, const ScoredVariant& variant,
                 const ScoringOptions& options, std::map<std::string, std::string> metadata) {
  LazyBlocks blocks(requests, variant, options);
  const auto vocab = static_cast<std::size_t>(options.vocab_size);
  const int tile = static_cast<int>(std::max<std::size_t>(1, options.tile_bytes / (vocab * sizeof(float))));
  std::vector<model::SafetensorsItem> items;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Request& request = requests[i];
    items.push_back({tensor_name(i, requests.size(), "input_ids"),
                     DType::kI64,
                     {static_cast<std::int64_t>(request.prompt.size() + request.forced.size())},
                     [&request](const model::AppendBytes& append) {
                       const std::vector<std::int64_t> ids = sequence_of(request);
                       append(ids.data(), ids.size() * sizeof(ids[0]));
                     }});
    items.push_back({tensor_name(i, requests.size(), "logits"),
                     DType::kF32,
                     {scored_rows(request), options.vocab_size},
                     [&, i](const model::AppendBytes& append) {
                       const int rows = scored_rows(requests[i]);
                       for (int first = 0; first < rows; first += tile) {
                         const std::vector<float> logits =
                             blocks.holding(i).logits(i, first, std::min(tile, rows - first));
                         append(logits.data(), logits.size() * sizeof(float));
                       }
                       if (options.on_scored) options.on_scored();
                     }});
  }
  metadata["format"] = "qwenbench-logits-1";
  model::write_safetensors(path, std::move(items), metadata);
}

std::unique_ptr<ReferenceRows> open_logits(const std::filesystem::path& path, std::span<const Request> requests,
                                           int vocab_size) {
  return std::make_unique<FileReference>(path, requests, vocab_size);
}

}  // namespace qwenbench::quality
