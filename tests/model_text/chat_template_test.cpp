// Against Transformers' apply_chat_template and Qwen3VLProcessor: scripts/fixtures/make_tokenizer_fixtures.py.
#include "model/chat_template.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "model_text/fixtures.h"

namespace qwenbench::model {
namespace {

using nlohmann::json;

std::vector<ChatMessage> messages_of(const json& messages) {
  std::vector<ChatMessage> out;
  int images = 0;
  for (const json& message : messages) {
    out.push_back({message["role"], {}});
    for (const json& part : message["parts"]) {
      if (part.is_string()) {
        out.back().parts.emplace_back(part.get<std::string>());
      } else {
        out.back().parts.emplace_back(ImagePart{images++});
      }
    }
  }
  return out;
}

TEST_CASE("text and ids are those of HF, images expanded") {
  const json fixture = text_fixture("chat.json");
  for (const json& entry : fixture["cases"]) {
    const auto style = entry["style"].get<std::string>();
    CAPTURE(entry["text"].get<std::string>());
    const ChatTemplate chat(ChatTemplate::style_of(fixture[style], style));
    CHECK(chat.style() == (style == "thinking" ? ChatStyle::kThinking : ChatStyle::kInstruct));
    const auto messages = messages_of(entry["messages"]);
    const auto pads = entry["pads"].get<std::vector<int>>();
    const bool prompt = entry["add_generation_prompt"];
    CHECK(chat.render(messages, prompt) == entry["text"].get<std::string>());
    const EncodedPrompt encoded = chat.encode(small_tokenizer(), messages, pads, prompt);
    CHECK(encoded.ids == entry["ids"].get<std::vector<std::int32_t>>());

    REQUIRE(encoded.images.size() == pads.size());
    const std::int32_t pad = small_tokenizer().id_of("<|image_pad|>").value();
    for (std::size_t i = 0; i < pads.size(); ++i) {
      const ImageSpan& span = encoded.images[i];
      CHECK(span.image == static_cast<int>(i));
      CHECK(span.length == pads[i]);
      CHECK(encoded.ids.at(static_cast<std::size_t>(span.begin)) == pad);
      CHECK(encoded.ids.at(static_cast<std::size_t>(span.begin) - 1) ==
            small_tokenizer().id_of("<|vision_start|>").value());
      CHECK(encoded.ids.at(static_cast<std::size_t>(span.begin + span.length)) ==
            small_tokenizer().id_of("<|vision_end|>").value());
    }
  }
}

TEST_CASE("what cannot be rendered is refused") {
  const ChatTemplate chat(ChatStyle::kInstruct);
  const auto error_of = [&](const std::vector<ChatMessage>& messages, const std::vector<int>& pads) {
    return message_of<InputError>([&] { chat.encode(small_tokenizer(), messages, pads); });
  };
  CHECK(error_of({{"user", {"an <|image_pad|> typed"}}}, {}).find("holds <|image_pad|>") != std::string::npos);
  CHECK(error_of({{"user", {ImagePart{1}}}}, {4}).find("refers to image 1, but the request has 1") !=
        std::string::npos);
  CHECK(error_of({{"user", {ImagePart{-1}}}}, {4}).find("image -1") != std::string::npos);
  CHECK(error_of({{"user", {ImagePart{0}}}}, {0}).find("no pads") != std::string::npos);
  CHECK(error_of({{"assistant", {ImagePart{0}}}}, {4}).find("role \"assistant\"") != std::string::npos);
  CHECK(error_of({{"tool", {"x"}}}, {}).find("unknown role \"tool\"") != std::string::npos);
  CHECK(error_of({{"user", {"x"}}, {"system", {"y"}}}, {}).find("must be the first") != std::string::npos);
}

TEST_CASE("images keep their index when they stand in another order") {
  const ChatTemplate chat(ChatStyle::kInstruct);
  const std::vector<ChatMessage> messages{{"user", {ImagePart{1}, "and", ImagePart{0}}}};
  const std::vector<int> pads{2, 3};
  const EncodedPrompt encoded = chat.encode(small_tokenizer(), messages, pads);
  REQUIRE(encoded.images.size() == 2);
  CHECK(encoded.images[0].image == 1);
  CHECK(encoded.images[0].length == 3);
  CHECK(encoded.images[1].image == 0);
  CHECK(encoded.images[1].length == 2);
}

TEST_CASE("the style comes from the checkpoint's template, or else from its name") {
  const auto root = std::filesystem::temp_directory_path() / "qwenbench_chat_template_test";
  std::filesystem::remove_all(root);
  const auto style_with = [&](const std::string& folder, const std::string& file, const std::string& content) {
    std::filesystem::create_directories(root / folder);
    if (!file.empty()) std::ofstream(root / folder / file) << content;
    return ChatTemplate::load(root / folder).style();
  };
  const json fixture = text_fixture("chat.json");
  const std::string thinking = fixture["thinking"], instruct = fixture["instruct"];
  CHECK(style_with("a", "", "") == ChatStyle::kInstruct);
  CHECK(style_with("b-Thinking", "", "") == ChatStyle::kThinking);
  CHECK(style_with("c-Thinking", "chat_template.jinja", instruct) == ChatStyle::kInstruct);
  CHECK(style_with("d", "chat_template.jinja", thinking) == ChatStyle::kThinking);
  CHECK(style_with("e", "chat_template.json", json{{"chat_template", thinking}}.dump()) == ChatStyle::kThinking);
  CHECK(style_with("f", "tokenizer_config.json", json{{"chat_template", thinking}}.dump()) == ChatStyle::kThinking);
  const json named = {{{"name", "tool_use"}, {"template", instruct}}, {{"name", "default"}, {"template", thinking}}};
  CHECK(style_with("g", "tokenizer_config.json", json{{"chat_template", named}}.dump()) == ChatStyle::kThinking);
  CHECK(style_with("h", "tokenizer_config.json", "{}") == ChatStyle::kInstruct);
  // Qwen3's switch: an empty thought that is closed at once does not make the prompt a thinking one.
  CHECK(ChatTemplate::style_of(
            "<|im_start|>{% if add_generation_prompt %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}", "x") ==
        ChatStyle::kInstruct);
  CHECK(message_of<InputError>([&] { style_with("i", "chat_template.jinja", "[INST]"); }).find("unsupported") !=
        std::string::npos);
  CHECK(message_of<InputError>([&] { style_with("j", "chat_template.json", "{"); }).find("JSON") != std::string::npos);
  CHECK(message_of<InputError>([&] {
          style_with("k", "chat_template.json", R"({"chat_template": 3})");
        }).find("string") != std::string::npos);
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace qwenbench::model
