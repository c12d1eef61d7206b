#include "model/quantization_config.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <memory>

#include "base/error.h"

namespace qwenbench::model {
namespace {

using Format = QuantizationConfig::Format;

constexpr int kMaxGroup = 1 << 16;

struct PcreDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
using Pattern = std::unique_ptr<pcre2_code, PcreDeleter>;

Pattern compile(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  return Pattern(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_ANCHORED, &error,
                               &offset, nullptr));
}

/// Python's re.match: anchored at the start only. A pattern that backtracks without end counts as no match.
bool matches_at_start(const std::string& pattern, const std::string& text) {
  const Pattern code = compile(pattern);
  if (!code) return false;
  const std::unique_ptr<pcre2_match_data, PcreDeleter> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, PcreDeleter> context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), 100'000);
  // With room for one pair, a match with groups returns 0 rather than their number.
  return pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, data.get(),
                     context.get()) >= 0;
}

void require_pattern(const JsonObject& object, const char* key, const std::string& entry) {
  if (entry.starts_with("re:") && !compile(entry.substr(3))) {
    object.fail(key, fmt::format("\"{}\" is not a regular expression", one_line(entry, 60)));
  }
}

void read_weights(const JsonObject& weights, QuantizationConfig& out) {
  out.bits = static_cast<int>(weights.integer("num_bits", 1, 64));
  if (out.bits != 4)
    weights.fail("num_bits", fmt::format("{} is not supported; pack-quantized is read with 4", out.bits));
  if (weights.has("type") && weights.text("type") != "int") weights.fail("type", "only \"int\" is supported");
  const std::string strategy = weights.text("strategy");
  if (strategy != "group") {
    weights.fail("strategy", fmt::format("\"{}\" is not supported; only \"group\"", one_line(strategy, 40)));
  }
  out.group_size = static_cast<int>(weights.integer("group_size", 8, kMaxGroup));
  if (out.group_size % 8 != 0) weights.fail("group_size", "must be a multiple of 8");
  out.symmetric = weights.boolean("symmetric");
  if (!weights.has("actorder")) return;
  // Older versions wrote a boolean for "group". "weight" reorders while quantizing and leaves no trace in the file.
  const auto& order = weights.at("actorder");
  out.activation_order = order.is_boolean() ? order.get<bool>() : weights.text("actorder") == "group";
}

void read_compressed_tensors(const JsonObject& object, QuantizationConfig& out) {
  const JsonObject groups = object.object("config_groups");
  out.kv_cache_scheme = object.has("kv_cache_scheme");
  if (groups.value().empty() && out.kv_cache_scheme) return;  // the cache alone is quantized
  if (groups.value().size() != 1) object.fail("config_groups", "must hold exactly one group");
  const std::string name = groups.value().begin().key();
  const JsonObject group = groups.object(name.c_str());
  const std::string format = group.has("format") ? group.text("format") : object.text("format");
  if (format != "pack-quantized") {
    object.fail("format", fmt::format("\"{}\" is not supported; only \"pack-quantized\"", one_line(format, 40)));
  }
  for (const char* key : {"input_activations", "output_activations"}) {
    if (group.has(key)) group.fail(key, "quantized activations are not supported with pack-quantized weights");
  }
  for (const std::string& target : group.has("targets") ? group.texts("targets") : std::vector<std::string>{"Linear"}) {
    if (target != "Linear") group.fail("targets", "only [\"Linear\"] is supported");
  }
  out.format = Format::kPackQuantized;
  read_weights(group.object("weights"), out);
  if (object.has("ignore")) out.ignore = object.texts("ignore");
  for (const std::string& entry : out.ignore) require_pattern(object, "ignore", entry);
}

void read_awq(const JsonObject& object, QuantizationConfig& out) {
  out.format = Format::kAwqGemm;
  out.bits = static_cast<int>(object.integer("bits", 1, 64));
  if (out.bits != 4) object.fail("bits", fmt::format("{} is not supported; AWQ is read with 4", out.bits));
  out.group_size = static_cast<int>(object.integer("group_size", 8, kMaxGroup));
  if (object.has("version")) {
    std::string version = object.text("version");
    std::transform(version.begin(), version.end(), version.begin(),
                   [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); });
    if (version != "gemm")
      object.fail("version", fmt::format("\"{}\" is not supported; only \"gemm\"", one_line(version, 40)));
  }
  if (!object.boolean_or("zero_point", true)) object.fail("zero_point", "false is not supported");
  if (object.has("modules_to_not_convert")) out.ignore = object.texts("modules_to_not_convert");
}

void read_fp8(const JsonObject& object, QuantizationConfig& out) {
  out.format = Format::kFp8Block;
  out.bits = 8;
  out.group_size = 128;
  out.symmetric = true;
  if (object.has("fmt") && object.text("fmt") != "e4m3") object.fail("fmt", "only \"e4m3\" is supported");
  if (!object.has("weight_block_size"))
    object.fail("weight_block_size", "missing; only FP8 in blocks of 128 x 128 is read");
  const auto block = object.integers("weight_block_size", 1, kMaxGroup);
  if (block != std::vector<std::int64_t>{128, 128}) object.fail("weight_block_size", "only [128, 128] is supported");
  for (const char* key : {"modules_to_not_convert", "ignored_layers"}) {
    if (!object.has(key)) continue;
    for (std::string& entry : object.texts(key)) out.ignore.push_back(std::move(entry));
  }
}

/// AutoAWQ and HF's FP8 name a module, or a module above it ("visual" covers "model.visual.blocks.0.attn.qkv").
bool is_or_is_below(const std::string& module, const std::string& entry) {
  const std::string dotted = "." + module + ".";
  return !entry.empty() && dotted.find("." + entry + ".") != std::string::npos;
}

}  // namespace

QuantizationConfig read_quantization_config(const JsonObject& object) {
  QuantizationConfig out;
  const std::string method = object.text("quant_method");
  if (method == "compressed-tensors")
    read_compressed_tensors(object, out);
  else if (method == "awq")
    read_awq(object, out);
  else if (method == "fp8")
    read_fp8(object, out);
  else
    object.fail("quant_method", fmt::format("\"{}\" is not one of compressed-tensors, awq, fp8", one_line(method, 40)));
  return out;
}

bool QuantizationConfig::ignores(const std::string& module) const {
  // Neither AutoAWQ nor HF's FP8 quantizer touches the output head, listed or not.
  if (format != Format::kPackQuantized && module == "lm_head") return true;
  return std::any_of(ignore.begin(), ignore.end(), [&](const std::string& entry) {
    if (format != Format::kPackQuantized) return is_or_is_below(module, entry);
    return entry.starts_with("re:") ? matches_at_start(entry.substr(3), module) : entry == module;
  });
}

std::string QuantizationConfig::describe() const {
  const char* zero = symmetric ? "symmetric" : "asymmetric";
  switch (format) {
    case Format::kNone:
      return "none";
    case Format::kPackQuantized:
      return fmt::format("compressed-tensors w{}a16 g{} {}{}", bits, group_size, zero,
                         activation_order ? " actorder" : "");
    case Format::kAwqGemm:
      return fmt::format("awq gemm w{}a16 g{} {}", bits, group_size, zero);
    case Format::kFp8Block:
      return "fp8 e4m3 block 128x128";
  }
  throw std::logic_error("QuantizationConfig::describe: unknown format");
}

}  // namespace qwenbench::model
