// Tokens per second of the engine alone, on a CPU: prefill, and decoding at batch 1 and 16 with a context of at most
// 128.
//   engine_bench MODEL_DIRECTORY THREADS [first-token | prefill | ceiling | decode-1 | decode-16]
// Prints "name value" lines, with a name only that one. With first-token it stops after the first token of a short
// prompt: time the whole process.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "engine/session.h"
#include "fma_ceiling.h"

using namespace qwenbench;

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPrefillTokens = 512, kPromptTokens = 32, kOutputTokens = 96, kRepeats = 9;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

workload::Request make_request(int prompt_tokens, int output_tokens, int vocab_size) {
  static std::mt19937 random(1);
  workload::Request request;
  // The lower half of the vocabulary holds no special token.
  for (int i = 0; i < prompt_tokens; ++i) request.prompt.push_back(static_cast<int>(random() % (vocab_size / 2)));
  request.max_tokens = output_tokens;
  request.ignore_eos = true;
  return request;
}

class Bench {
 public:
  Bench(const std::string& directory, int threads) {
    options_.engine.device = profile::Device::kCpu;
    options_.engine.cpu_threads = threads;
    model_ = engine::Model::load(*model::open_checkpoint(directory), options_.engine);
    session_ = std::make_unique<engine::Session>(model_, options_);
  }

  const model::ModelConfig& config() const { return model_->config(); }

  /// Seconds until `batch` prompts are in the cache and each has its first token.
  double prefill(int batch, int tokens) {
    submit(batch, tokens, 1);
    const auto start = Clock::now();
    while (!session_->idle()) session_->step();
    return seconds_since(start);
  }

  /// Seconds of each step that only decodes; a step yields a token of each of `batch` sequences.
  std::vector<double> decode_steps(int batch) {
    submit(batch, kPromptTokens, kOutputTokens);
    std::vector<double> steps;
    while (!session_->idle()) {
      const auto start = Clock::now();
      const auto& events = session_->step();
      if (events.prefill_tokens == 0) steps.push_back(seconds_since(start));
    }
    return steps;
  }

 private:
  void submit(int batch, int prompt_tokens, int output_tokens) {
    for (int i = 0; i < batch; ++i)
      session_->submit(make_request(prompt_tokens, output_tokens, model_->config().text.vocab_size));
  }

  engine::SessionOptions options_;
  std::shared_ptr<engine::Model> model_;
  std::unique_ptr<engine::Session> session_;
};

double prefill_rate(Bench& bench) {
  bench.prefill(1, kPrefillTokens);  // warm-up
  std::vector<double> seconds;
  for (int i = 0; i < kRepeats; ++i) seconds.push_back(bench.prefill(1, kPrefillTokens));
  return kPrefillTokens / median(seconds);
}

/// Multiply-adds, counted twice, of one token at the decode benchmark's mean context.
double decode_flops_per_token(const model::TextConfig& text) {
  const double heads = text.num_heads, kv_heads = text.num_kv_heads, d = text.head_dim, hidden = text.hidden_size;
  const double projections = hidden * d * (2 * heads + 2 * kv_heads) + 3 * hidden * text.intermediate_size;
  const double context = kPromptTokens + 0.5 * kOutputTokens;
  const double attention = 2 * heads * d * context;
  return 2 * (text.num_layers * (projections + attention) + hidden * text.vocab_size);
}

struct DecodeRates {
  double median = 0;
  /// Each step as fast as it ever was: what other processes take from this one is not in it.
  double undisturbed = 0;
};

DecodeRates decode_rates(Bench& bench, int batch) {
  std::vector<double> fastest = bench.decode_steps(batch);  // warm-up
  std::vector<double> sums;
  for (int i = 0; i < kRepeats; ++i) {
    const std::vector<double> steps = bench.decode_steps(batch);
    sums.push_back(std::accumulate(steps.begin(), steps.end(), 0.0));
    for (std::size_t j = 0; j < steps.size(); ++j) fastest[j] = std::min(fastest[j], steps[j]);
  }
  const double tokens = static_cast<double>(batch) * static_cast<double>(fastest.size());
  return {tokens / median(sums), tokens / std::accumulate(fastest.begin(), fastest.end(), 0.0)};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(
        stderr,
        "usage: engine_bench MODEL_DIRECTORY THREADS [first-token | prefill | ceiling | decode-1 | decode-16]\n");
    return 2;
  }
  const int threads = std::atoi(argv[2]);
  try {
    const auto start = Clock::now();
    Bench engine(argv[1], threads);
    engine.prefill(1, kPromptTokens);
    fmt::print("startup_to_first_token_s {:.4f}\n", seconds_since(start));
    const std::string only = argc > 3 ? argv[3] : "";
    if (only == "first-token") return 0;
    if (only.empty() || only == "prefill") {
      fmt::print("prefill_tokens_per_s {:.1f}\n", prefill_rate(engine));
    }
    if (only.empty() || only == "ceiling") {
      fmt::print("multiply_add_gflops {:.1f}\n", bench::multiply_add_gflops(threads));
      fmt::print("decode_flops_per_token {:.0f}\n", decode_flops_per_token(engine.config().text));
    }
    for (const int batch : {1, 16}) {
      if (!only.empty() && only != fmt::format("decode-{}", batch)) continue;
      const DecodeRates rates = decode_rates(engine, batch);
      fmt::print("decode_{}_tokens_per_s {:.1f}\n", batch, rates.median);
      fmt::print("decode_{}_undisturbed_tokens_per_s {:.1f}\n", batch, rates.undisturbed);
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "engine_bench: {}\n", error.what());
    return 1;
  }
}
