// A model's folder without weights: a small config beside the tokenizer that Hugging Face's library made.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace qwenbench::test {

inline constexpr std::int32_t kImStart = 1571, kImEnd = 1572, kVisionStart = 1579, kVisionEnd = 1580, kImagePad = 1582;

inline const char* const kConfig = R"({
  "model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"], "tie_word_embeddings": true,
  "image_token_id": 1582, "video_token_id": 1583, "vision_start_token_id": 1579, "vision_end_token_id": 1580,
  "text_config": {"hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 128, "intermediate_size": 512, "vocab_size": 1600, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6, "rope_theta": 5000000,
    "rope_scaling": {"mrope_interleaved": true, "mrope_section": [24, 20, 20], "rope_type": "default"}},
  "vision_config": {"depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "patch_size": 16,
    "temporal_patch_size": 2, "spatial_merge_size": 2, "num_position_embeddings": 2304, "out_hidden_size": 256,
    "deepstack_visual_indexes": [0, 1, 2]}})";

class ModelFolder {
 public:
  explicit ModelFolder(bool thinking = false) {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("qwenbench-model-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
    write("config.json", kConfig);
    write("generation_config.json", R"({"eos_token_id": [1572, 1570]})");
    write("preprocessor_config.json", R"({"size": {"shortest_edge": 1024, "longest_edge": 262144}})");
    std::filesystem::copy_file("model_text/fixtures/tokenizer.json", path_ / "tokenizer.json");
    const auto chat = nlohmann::json::parse(std::ifstream("model_text/fixtures/chat.json"));
    write("chat_template.jinja", chat[thinking ? "thinking" : "instruct"].get<std::string>());
  }
  ~ModelFolder() { std::filesystem::remove_all(path_); }
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
    return (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

}  // namespace qwenbench::test
