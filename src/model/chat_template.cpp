#include "model/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/atomic_file.h"
#include "base/error.h"

namespace qwenbench::model {
namespace {

using nlohmann::json;

constexpr std::string_view kImage = "<|vision_start|><|image_pad|><|vision_end|>";
constexpr std::string_view kPad = "<|image_pad|>";

std::string strip_newlines(std::string_view text, bool left, bool right) {
  while (left && text.starts_with('\n')) text.remove_prefix(1);
  while (right && text.ends_with('\n')) text.remove_suffix(1);
  return std::string(text);
}

/// An assistant's text, cut where the Thinking template cuts it.
struct Reply {
  std::string reasoning, content;
};

Reply split_reasoning(const std::string& text) {
  constexpr std::string_view kOpen = "<think>", kClose = "</think>";
  const std::size_t first = text.find(kClose);
  if (first == std::string::npos) return {"", text};
  std::string reasoning = strip_newlines(std::string_view(text).substr(0, first), false, true);
  const std::size_t open = reasoning.rfind(kOpen);
  if (open != std::string::npos) reasoning.erase(0, open + kOpen.size());
  const std::string content = text.substr(text.rfind(kClose) + kClose.size());
  return {strip_newlines(reasoning, true, true), strip_newlines(content, true, false)};
}

std::string text_of(const ChatMessage& message) {
  std::string out;
  for (const MessagePart& part : message.parts) {
    if (const std::string* text = std::get_if<std::string>(&part)) {
      out += *text;
    } else if (message.role == "user") {
      out += kImage;
    } else {
      throw InputError(
          fmt::format("an image stands in a message of role \"{}\": move it to a user message", message.role));
    }
  }
  return out;
}

/// The last message that is a user's question and no tool's answer: reasoning before it is left out.
std::size_t last_query(std::span<const ChatMessage> messages) {
  for (std::size_t i = messages.size(); i-- > 0;) {
    if (messages[i].role != "user") continue;
    const std::string text = text_of(messages[i]);
    if (!(text.starts_with("<tool_response>") && text.ends_with("</tool_response>"))) return i;
  }
  return messages.empty() ? 0 : messages.size() - 1;
}

std::string thinking_reply(const std::string& text, bool is_after_query, bool is_last) {
  const Reply reply = split_reasoning(text);
  if (!is_after_query || (!is_last && reply.reasoning.empty())) return reply.content;
  return "<think>\n" + reply.reasoning + "\n</think>\n\n" + strip_newlines(reply.content, true, false);
}

/// "chat_template" of a JSON file: a string, or a list of named ones, of which "default" counts.
std::optional<std::string> template_in_json(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const json root = json::parse(read_file(path), nullptr, false);
  if (!root.is_object()) throw InputError(path.string() + ": is not a JSON object; fetch the file again");
  const auto it = root.find("chat_template");
  if (it == root.end() || it->is_null()) return std::nullopt;
  if (it->is_string()) return it->get<std::string>();
  if (it->is_array()) {
    for (const json& entry : *it) {
      const bool is_default = entry.is_object() && entry.value("name", json()) == "default";
      if (is_default && entry.value("template", json()).is_string()) return entry["template"].get<std::string>();
    }
  }
  throw InputError(path.string() + ": \"chat_template\" must be a string, or a list with one named \"default\"");
}

std::vector<int> image_indices(std::span<const ChatMessage> messages) {
  std::vector<int> out;
  for (const ChatMessage& message : messages) {
    for (const MessagePart& part : message.parts) {
      if (const ImagePart* image = std::get_if<ImagePart>(&part)) out.push_back(image->index);
    }
  }
  return out;
}

}  // namespace

ChatStyle ChatTemplate::style_of(const std::string& jinja, const std::string& name) {
  if (jinja.find("<|im_start|>") == std::string::npos) {
    throw InputError(name +
                     ": unsupported chat template (it does not use <|im_start|>); only Qwen3-VL's can be rendered");
  }
  const std::size_t prompt = jinja.rfind("add_generation_prompt");
  if (prompt == std::string::npos) return ChatStyle::kInstruct;
  // Each literal that opens <think> counts unless it closes it, too: "<think>\n\n</think>" switches thinking off.
  for (std::size_t at = jinja.find("<think>", prompt); at != std::string::npos; at = jinja.find("<think>", at + 1)) {
    const std::size_t quote = jinja.find_first_of("'\"", at);
    const std::size_t close = jinja.find("</think>", at);
    if (close == std::string::npos || close > quote) return ChatStyle::kThinking;
  }
  return ChatStyle::kInstruct;
}

ChatTemplate ChatTemplate::load(const std::filesystem::path& model_dir) {
  const std::filesystem::path jinja = model_dir / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) return ChatTemplate(style_of(read_file(jinja), jinja));
  for (const char* file : {"chat_template.json", "tokenizer_config.json"}) {
    const std::optional<std::string> text = template_in_json(model_dir / file);
    if (text) return ChatTemplate(style_of(*text, model_dir / file));
  }
  // "folder/" has an empty last part; a snapshot folder of the hub's cache is named by a hash, its model further up.
  const std::string path = std::filesystem::absolute(model_dir).lexically_normal().string();
  const bool is_thinking = path.find("Thinking") != std::string::npos;
  return ChatTemplate(is_thinking ? ChatStyle::kThinking : ChatStyle::kInstruct);
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  const std::size_t query = last_query(messages);
  std::string out;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "system" && i > 0) throw InputError("a system message must be the first of its request");
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      throw InputError(fmt::format("unknown role \"{}\": use system, user or assistant", one_line(message.role, 40)));
    }
    std::string text = text_of(message);
    if (style_ == ChatStyle::kThinking && message.role == "assistant") {
      text = thinking_reply(text, i > query, i + 1 == messages.size());
    }
    out += "<|im_start|>" + message.role + "\n" + text + "<|im_end|>\n";
  }
  if (add_generation_prompt)
    out += style_ == ChatStyle::kThinking ? "<|im_start|>assistant\n<think>\n" : "<|im_start|>assistant\n";
  return out;
}

EncodedPrompt ChatTemplate::encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                   std::span<const int> pads_per_image, bool add_generation_prompt) const {
  const std::vector<int> images = image_indices(messages);
  const std::vector<std::int32_t> ids = tokenizer.encode(render(messages, add_generation_prompt));
  const std::optional<std::int32_t> pad = tokenizer.id_of(kPad);
  if (!images.empty() && !pad) throw InputError("the tokenizer has no <|image_pad|> token: this is no Qwen3-VL model");
  const auto placeholders = pad ? std::count(ids.begin(), ids.end(), *pad) : 0;
  if (placeholders != static_cast<std::ptrdiff_t>(images.size())) {
    throw InputError("the text of a message holds <|image_pad|>, which stands for an image: remove it");
  }

  EncodedPrompt out;
  for (const std::int32_t id : ids) {
    if (!pad || id != *pad) {
      out.ids.push_back(id);
      continue;
    }
    const int image = images[out.images.size()];
    if (image < 0 || image >= static_cast<int>(pads_per_image.size())) {
      throw InputError(
          fmt::format("a message refers to image {}, but the request has {}", image, pads_per_image.size()));
    }
    const int length = pads_per_image[static_cast<std::size_t>(image)];
    if (length < 1) throw InputError(fmt::format("image {} has no pads", image));
    out.images.push_back({image, static_cast<int>(out.ids.size()), length});
    out.ids.insert(out.ids.end(), static_cast<std::size_t>(length), *pad);
  }
  return out;
}

}  // namespace qwenbench::model
