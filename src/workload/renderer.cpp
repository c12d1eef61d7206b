#include "workload/renderer.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "model/image_decode.h"
#include "model/image_processor.h"

namespace qwenbench::workload {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kCloseThought = "\n</think>\n\n";

bool has_tokenizer_files(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / "tokenizer.json", error) || fs::exists(folder / "vocab.json", error);
}

std::shared_ptr<const Image> make_image(const model::RgbImage& picture, const model::ImageProcessorConfig& config) {
  model::ProcessedImage processed = model::process_image(picture, config);
  auto image = std::make_shared<Image>();
  image->grid_h = processed.grid_h;
  image->grid_w = processed.grid_w;
  image->sha256 = model::content_hash(processed);
  image->pixel_values = std::move(processed.pixel_values);
  return image;
}

/// Ids that mean something to the chat form or end a generation.
std::set<std::int32_t> marked_ids(const model::ModelConfig& config) {
  std::set<std::int32_t> ids(config.generation.eos_token_ids.begin(), config.generation.eos_token_ids.end());
  for (const auto id :
       {config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id}) {
    if (id >= 0) ids.insert(id);
  }
  return ids;
}

/// "<think>", "<|object_ref_start|>": an added token, marked special or not.
bool looks_like_markup(std::string_view bytes) {
  return bytes.size() > 2 && bytes.front() == '<' && bytes.back() == '>';
}

std::vector<std::int32_t> find_plain_tokens(const model::ModelConfig& config,
                                            const std::optional<model::Tokenizer>& tokenizer) {
  const auto marked = marked_ids(config);
  std::int32_t end = config.text.vocab_size;
  if (tokenizer) {
    end = std::min(end, tokenizer->vocab_size());
  } else if (!marked.empty() && *marked.begin() > end / 2) {
    end = *marked.begin();  // Qwen's added tokens stand together behind the vocabulary
  }
  std::vector<std::int32_t> plain;
  for (std::int32_t id = 0; id < end; ++id) {
    if (marked.contains(id)) continue;
    if (tokenizer &&
        (tokenizer->is_special(id) || tokenizer->bytes_of(id).empty() || looks_like_markup(tokenizer->bytes_of(id)))) {
      continue;
    }
    plain.push_back(id);
  }
  return plain;
}

}  // namespace

Renderer::Renderer(const fs::path& model_directory) : config_(model::read_model_config(model_directory)) {
  if (has_tokenizer_files(model_directory)) {
    tokenizer_ = model::Tokenizer::load(model_directory);
    template_ = model::ChatTemplate::load(model_directory);
  }
  stop_ids_ = config_.generation.eos_token_ids;
  if (stop_ids_.empty() && tokenizer_) {
    if (const auto id = tokenizer_->id_of("<|im_end|>")) stop_ids_.push_back(*id);
  }
  plain_tokens_ = find_plain_tokens(config_, tokenizer_);
  if (plain_tokens_.empty())
    throw InputError(fmt::format("{}: the vocabulary holds no ordinary token", model_directory.string()));
}

const model::Tokenizer& Renderer::tokenizer() const {
  if (!tokenizer_)
    throw InputError(
        "the model's folder holds no tokenizer: only workload.dataset \"random\" can run (and no quality)");
  return *tokenizer_;
}

std::shared_ptr<const Image> Renderer::load_image(const std::string& path) {
  auto& image = images_[path];
  if (!image) image = make_image(model::read_image(path), config_.image_processor);
  return image;
}

std::shared_ptr<const Image> Renderer::random_image(int height, int width, std::uint64_t seed) const {
  return make_image(model::random_image(width, height, seed), config_.image_processor);
}

Rendered Renderer::render(const Dataset& dataset, const Sample& sample) {
  const model::Tokenizer& words = tokenizer();
  Rendered rendered;
  try {
    if (sample.messages.empty()) {
      rendered.ids = words.encode(sample.text);
      if (std::find(rendered.ids.begin(), rendered.ids.end(), config_.image_token_id) != rendered.ids.end()) {
        throw InputError("a plain text must not contain <|image_pad|>");
      }
      return rendered;
    }
    std::vector<model::ChatMessage> messages;
    std::vector<int> pads;
    for (const auto& message : sample.messages) {
      messages.push_back({message.role, {}});
      for (const auto& content : message.content) {
        if (content.kind == Content::Kind::kText) {
          messages.back().parts.emplace_back(content.text);
          continue;
        }
        messages.back().parts.emplace_back(model::ImagePart{static_cast<int>(pads.size())});
        rendered.images.push_back(load_image(content.text));
        pads.push_back(rendered.images.back()->num_tokens(config_.vision.merge_unit()));
      }
    }
    rendered.ids = template_->encode(words, messages, pads).ids;
    return rendered;
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: request {}: {}", dataset.where(sample), one_line(sample.id, 80), error.what()));
  }
}

Renderer::Answer Renderer::render_answer(const std::string& answer) const {
  Answer rendered;
  if (template_ && template_->style() == model::ChatStyle::kThinking) {
    rendered.ids = tokenizer().encode(kCloseThought);
    rendered.score_from = static_cast<int>(rendered.ids.size());
  }
  const auto ids = tokenizer().encode(answer);
  rendered.ids.insert(rendered.ids.end(), ids.begin(), ids.end());
  if (const auto end = tokenizer().id_of("<|im_end|>")) rendered.ids.push_back(*end);
  return rendered;
}

}  // namespace qwenbench::workload
