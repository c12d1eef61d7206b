#include "run_options.h"

#include <fmt/format.h>

#include <array>

#include "base/error.h"

namespace qwenbench::tools {
namespace {

constexpr std::array kRunShortcuts{
    Shortcut{"--model", "model", "PATH|ID", "Checkpoint directory, or a hub id in the local cache"},
    Shortcut{"--load-format", "load_format", "auto|dummy", "dummy: seeded random weights, for speed only"},
    Shortcut{"--device", "engine.device", "auto|cpu|cuda", "Where the model runs"},
    Shortcut{"--tensor-parallel-size", "engine.tensor_parallel_size", "N", "Ranks that share every layer"},
    Shortcut{"--max-model-len", "engine.max_model_len", "TOKENS", "Longest sequence"},
    Shortcut{"--max-num-seqs", "engine.max_num_seqs", "N", "Sequences of one step"},
    Shortcut{"--max-num-batched-tokens", "engine.max_num_batched_tokens", "TOKENS", "Tokens of one step"},
    Shortcut{"--dataset", "workload.dataset", "NAME|FILE", "Prompts: a name in datasets/, a JSONL file, or random"},
    Shortcut{"--num-prompts", "workload.num_prompts", "N", "Requests of one trial"},
    Shortcut{"--max-tokens", "workload.max_tokens", "TOKENS", "Tokens to generate per request"},
    Shortcut{"--max-concurrency", "workload.max_concurrency", "N", "Requests under way at the same time"},
    Shortcut{"--request-rate", "workload.request_rate", "RATE", "Requests per second, or inf"},
    Shortcut{"--trials", "workload.trials", "N", "Trials per variant"},
    Shortcut{"--seed", "workload.seed", "N", "Seed of everything random"},
};

}  // namespace

void add_profile_options(CLI::App& app, RunArguments& arguments, std::span<const Shortcut> shortcuts) {
  app.add_option("-p,--profile", arguments.profile, "Experiment: profiles/NAME.json, or a file")
      ->type_name("NAME|FILE");
  app.add_option("--set", arguments.sets, "Override a field of the profile; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  for (const Shortcut& shortcut : shortcuts) {
    app.add_option_function<std::string>(
           shortcut.flag,
           [&arguments, path = shortcut.path](const std::string& value) {
             arguments.shortcuts.push_back(fmt::format("{}={}", path, value));
           },
           fmt::format("{} ({})", shortcut.help, shortcut.path))
        ->type_name(shortcut.type);
  }
}

void add_run_options(CLI::App& app, RunArguments& arguments) {
  add_profile_options(app, arguments, kRunShortcuts);
  app.add_option("-o,--output", arguments.output, "Result file [results/PROFILE-TIME.json]")->type_name("FILE");
  app.add_option("--report", arguments.report, "Also write the decision document: question, numbers, verdict, risks")
      ->type_name("FILE.md");
  app.add_option("--save-logits", arguments.save_logits, "Write input ids and fp32 logits of the scored requests")
      ->type_name("FILE.safetensors");
  app.add_option("--reference-logits", arguments.reference_logits, "Score against the logits of such a file")
      ->type_name("FILE.safetensors");
  app.add_flag("-q,--quiet", arguments.quiet, "No progress on stderr");
  auto* dry_run = app.add_flag("--dry-run", arguments.dry_run,
                               "Print the resolved profile, the memory plan and warnings; load no weights");
  app.add_option("--assume-devices", arguments.assume_devices,
                 "With --dry-run: plan for hardware that is not here, as in 2x24GiB,sm_89")
      ->type_name("NxMEM,sm_CC")
      ->needs(dry_run);
}

profile::Profile load_profile(const RunArguments& arguments, const std::string& command) {
  std::vector<std::string> overrides = arguments.sets;
  overrides.insert(overrides.end(), arguments.shortcuts.begin(), arguments.shortcuts.end());
  if (!arguments.profile.empty()) return profile::load_profile(arguments.profile, overrides);
  for (const auto& text : overrides) {
    if (text.starts_with("model=")) return profile::parse_profile("{}", "command line", {}, overrides);
  }
  throw InputError(fmt::format("nothing to run: give --profile NAME or --model PATH (see {} --help)", command));
}

}  // namespace qwenbench::tools
