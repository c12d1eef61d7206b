// A conversation as the token ids that the model reads: Qwen3-VL's chat form, each image expanded to its pads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "model/tokenizer.h"

namespace qwenbench::model {

/// An image of the request, by its position in the request's list.
struct ImagePart {
  int index = 0;
};
using MessagePart = std::variant<std::string, ImagePart>;

struct ChatMessage {
  std::string role;  // "system" (first only, text only), "user", "assistant" (text only)
  std::vector<MessagePart> parts;
};

/// Where the pads of one image stand in the ids.
struct ImageSpan {
  int image = 0;   // ImagePart::index
  int begin = 0;   // position of the first <|image_pad|>
  int length = 0;  // number of pads
};

struct EncodedPrompt {
  std::vector<std::int32_t> ids;
  std::vector<ImageSpan> images;  // in order of position
};

/// Instruct: "<|im_start|>role\n...<|im_end|>\n" and the generation prompt "<|im_start|>assistant\n". Thinking: that
/// prompt goes on with "<think>\n", and the reasoning of earlier assistant turns is left out.
enum class ChatStyle { kInstruct, kThinking };

class ChatTemplate {
 public:
  explicit ChatTemplate(ChatStyle style) : style_(style) {}

  /// The style by the checkpoint's template (chat_template.jinja, chat_template.json, or "chat_template" of
  /// tokenizer_config.json): Thinking where its generation prompt holds an opening <think> that it does not close.
  /// No template: Thinking where the folder's name says so, Instruct otherwise. Templates are not interpreted; one that
  /// does not use <|im_start|> is refused with InputError.
  static ChatTemplate load(const std::filesystem::path& model_dir);
  /// The style of a Jinja source text; `name` stands in error messages.
  static ChatStyle style_of(const std::string& jinja, const std::string& name);

  ChatStyle style() const { return style_; }

  /// The text that HF's apply_chat_template(..., tokenize=False) gives. Throws InputError on an unknown role, an image
  /// outside a user message, a system message that is not the first.
  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt = true) const;

  /// render(), tokenized as HF does: added tokens that users typed become their ids, too. Image i becomes
  /// pads_per_image[i] copies of <|image_pad|>. Throws InputError also where a user typed <|image_pad|> itself, or an
  /// index has no entry in pads_per_image.
  EncodedPrompt encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                       std::span<const int> pads_per_image, bool add_generation_prompt = true) const;

 private:
  ChatStyle style_;
};

}  // namespace qwenbench::model
