// From a conversation to the tokens and pixel values that one model reads.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/chat_template.h"
#include "model/config.h"
#include "model/tokenizer.h"
#include "workload/dataset.h"
#include "workload/request.h"

namespace qwenbench::workload {

/// A conversation up to the assistant's turn, or a plain text.
struct Rendered {
  std::vector<std::int32_t> ids;  // image pads expanded
  std::vector<std::shared_ptr<const Image>> images;
};

class Renderer {
 public:
  /// Reads config and tokenizer of a model. A folder with a config alone (dry runs, load_format dummy) renders no text:
  /// only random workloads need no tokenizer.
  explicit Renderer(const std::filesystem::path& model_directory);

  const model::ModelConfig& config() const { return config_; }
  bool has_tokenizer() const { return tokenizer_.has_value(); }
  /// Throws InputError where there is none.
  const model::Tokenizer& tokenizer() const;

  /// Throws InputError "FILE:LINE: request ID: ...". Pictures are processed once and shared by the requests that show
  /// them.
  Rendered render(const Dataset& dataset, const Sample& sample);

  /// The tokens of an answer as the model should write it, closed by <|im_end|>. A Thinking model's generation prompt
  /// opens a thought; the answer's tokens then begin by closing it, and `score_from` leaves that part out.
  struct Answer {
    std::vector<std::int32_t> ids;
    int score_from = 0;
  };
  Answer render_answer(const std::string& answer) const;

  /// A picture of random content: the same for the same arguments.
  std::shared_ptr<const Image> random_image(int height, int width, std::uint64_t seed) const;

  /// Ids that random prompts are drawn from: ordinary tokens, none of which means anything to the chat form.
  const std::vector<std::int32_t>& plain_tokens() const { return plain_tokens_; }

  /// Ids that end a generation: generation_config's, else <|im_end|>.
  const std::vector<std::int32_t>& stop_ids() const { return stop_ids_; }

 private:
  std::shared_ptr<const Image> load_image(const std::string& path);

  model::ModelConfig config_;
  std::optional<model::Tokenizer> tokenizer_;
  std::optional<model::ChatTemplate> template_;
  std::vector<std::int32_t> plain_tokens_, stop_ids_;
  std::map<std::string, std::shared_ptr<const Image>> images_;  // by path
};

}  // namespace qwenbench::workload
