#include "compare/files/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <optional>

#include "base/error.h"
#include "base/thread_pool.h"
#include "report/profile_view.h"
#include "report/result_file.h"
#include "stats/descriptive.h"

namespace qwenbench::compare {
namespace {

using report::Result;
using report::VariantResult;

std::vector<double> curve(std::vector<double> samples) {
  std::vector<double> quantiles;
  if (samples.empty()) return quantiles;
  std::sort(samples.begin(), samples.end());
  for (int percent = 0; percent <= 100; ++percent) {
    quantiles.push_back(1e3 * stats::quantile_sorted(samples, percent / 100.0));
  }
  return quantiles;
}

LatencyCurves curves_of(const VariantResult& variant) {
  std::vector<double> ttft, itl;
  for (const report::RequestRecord& request : variant.requests) {
    if (!request.completed()) continue;
    ttft.push_back(*request.ttft);
    itl.insert(itl.end(), request.itls.begin(), request.itls.end());
  }
  return {curve(std::move(ttft)), curve(std::move(itl))};
}

/// What was no number when the file was written stands as null: it must not pass as "not measured".
void check_finite(const Result& result, const std::string& source) {
  for (const report::Warning& warning : result.warnings) {
    if (warning.code != "NOT_FINITE") continue;
    throw InputError(
        fmt::format("{}: {}; find out why, or compare the rest with --force", source, one_line(warning.message)));
  }
}

void check_usable(const Result& result, const std::string& source, const LoadOptions& options) {
  if (result.variants.empty()) throw InputError(fmt::format("{}: holds no variant, nothing to compare", source));
  if (result.was_cancelled && !options.allow_partial) {
    throw InputError(fmt::format(
        "{}: partial results of a run that was cut short; run it again, or compare them with --force", source));
  }
  if (!options.allow_partial) check_finite(result, source);
  for (const VariantResult& variant : result.variants) {
    if (variant.summary.completed > 0 || (variant.summary.failed == 0 && variant.quality)) continue;
    if (result.was_cancelled) continue;
    throw InputError(fmt::format("{}: {} of variant {}: nothing to compare", source,
                                 variant.summary.failed > 0 ? "every request failed" : "no request was measured",
                                 one_line(variant.name, 60)));
  }
}

std::string gpus_of(const report::Environment& environment) {
  std::vector<std::string> names;
  for (const report::Device& device : environment.devices) names.push_back(device.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::map<std::string, std::string> keys_of(const Result& result, const Input& input) {
  std::map<std::string, std::string> keys = report::flatten_profile(result.profile_json);
  keys["file"] = input.path.string();
  if (!input.side.empty()) keys["side"] = input.side;
  keys["model"] = result.engine.model;
  keys["device"] = result.engine.device;
  keys["weights"] = result.engine.weights;
  keys["gpu"] = gpus_of(result.environment);
  keys["cpu"] = result.environment.cpu_info;
  keys["build_commit"] = result.environment.build_commit;
  return keys;
}

std::vector<Run> read_input(const Input& input, const LoadOptions& options) {
  return runs_of(report::read_result(input.path), input, options);
}

}  // namespace

Input parse_input(const std::string& text, const std::string& side) {
  const std::size_t colon = text.rfind(':');
  std::error_code error;
  const bool has_variant =
      colon != std::string::npos && colon > 0 && colon + 1 < text.size() && !std::filesystem::exists(text, error);
  if (!has_variant) return {text, "", side};
  return {text.substr(0, colon), text.substr(colon + 1), side};
}

std::vector<Run> load_runs(const std::vector<Input>& inputs, const LoadOptions& options) {
  std::vector<std::vector<Run>> read(inputs.size());
  std::vector<std::exception_ptr> errors(inputs.size());
  ThreadPool pool(static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(available_cores()), inputs.size())));
  pool.parallel_for(static_cast<std::int64_t>(inputs.size()), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto index = static_cast<std::size_t>(i);
      try {
        read[index] = read_input(inputs[index], options);
      } catch (...) {
        errors[index] = std::current_exception();
      }
    }
  });
  std::vector<Run> runs;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (errors[i]) std::rethrow_exception(errors[i]);
    runs.insert(runs.end(), std::make_move_iterator(read[i].begin()), std::make_move_iterator(read[i].end()));
  }
  return runs;
}

std::vector<Run> runs_of(report::Result read, const Input& input, const LoadOptions& options) {
  const std::string source = input.path.string();
  auto result = std::make_shared<Result>(std::move(read));
  check_usable(*result, source, options);
  std::vector<LatencyCurves> curves;
  for (VariantResult& variant : result->variants) {
    curves.push_back(options.keep_curves ? curves_of(variant) : LatencyCurves{});
    variant.requests = {};
  }
  const auto keys = keys_of(*result, input);
  std::vector<Run> runs;
  for (std::size_t i = 0; i < result->variants.size(); ++i) {
    const VariantResult& variant = result->variants[i];
    if (!input.variant.empty() && variant.name != input.variant) continue;
    Run& run = runs.emplace_back(Run{result, &variant, std::move(curves[i]), keys});
    run.keys["variant"] = variant.name;
    run.keys["kv_cache_dtype"] = variant.kv_cache_dtype;
    run.keys["kv_scales"] = variant.kv_scales.method;
  }
  if (!runs.empty()) return runs;
  std::vector<std::string> names;
  for (const VariantResult& variant : result->variants) names.push_back(variant.name);
  throw InputError(fmt::format("{}: no variant {}; it has {}", source, one_line(input.variant, 60),
                               one_line(fmt::format("{}", fmt::join(names, ", ")))));
}

bool same_run(const Run& a, const Run& b) {
  return a.result == b.result || (!a.result->benchmark_id.empty() && a.result->benchmark_id == b.result->benchmark_id);
}

const std::string& key_of(const Run& run, const std::string& key) {
  if (const auto found = run.keys.find(key); found != run.keys.end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [name, value] : run.keys) known.push_back(name);
  const std::string nearest = nearest_name(key, known);
  throw InputError(fmt::format("{} has no key \"{}\"{}", run.file(), one_line(key, 60),
                               nearest.empty() ? "" : fmt::format("; do you mean \"{}\"?", nearest)));
}

}  // namespace qwenbench::compare
