#include "workload/workload.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/sha256.h"
#include "workload/limits.h"
#include "workload/random.h"

namespace qwenbench::workload {
namespace {

void add_hashes(Workload& workload) {
  workload.requests_sha256 = hash_requests(workload.requests);
  workload.images_sha256 = hash_images(workload.requests);
}

std::vector<std::int32_t> random_tokens(const Renderer& renderer, int count, std::uint64_t seed) {
  Generator generator(seed);
  const auto& plain = renderer.plain_tokens();
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  for (auto& id : ids) id = plain[uniform<std::size_t>(generator, 0, plain.size() - 1)];
  return ids;
}

/// Requests of workload.dataset "random": pictures stand before the text, as in a chat.
std::vector<Request> random_requests(const profile::WorkloadOptions& options, const Renderer& renderer) {
  Generator lengths(derive_seed(options.seed, Stream::kLengths));
  std::vector<Request> requests;
  std::size_t pictures = 0;
  for (int i = 0; i < options.num_prompts; ++i) {
    Request request;
    request.id = fmt::format("random-{}", i);
    const auto stream = static_cast<std::uint64_t>(i);
    if (static_cast<std::size_t>((i + 1) * options.random.image_share) > pictures) {
      const auto [height, width] = options.random.image_sizes[pictures++ % options.random.image_sizes.size()];
      auto image = renderer.random_image(height, width, derive_seed(options.seed, Stream::kPictures, stream));
      const auto& config = renderer.config();
      request.prompt.push_back(config.vision_start_token_id);
      request.prompt.insert(request.prompt.end(),
                            static_cast<std::size_t>(image->num_tokens(config.vision.merge_unit())),
                            config.image_token_id);
      request.prompt.push_back(config.vision_end_token_id);
      request.images.push_back(std::move(image));
    }
    const int input = uniform(lengths, options.random.input_len.min, options.random.input_len.max);
    request.max_tokens = uniform(lengths, options.random.output_len.min, options.random.output_len.max);
    const auto text = random_tokens(renderer, input, derive_seed(options.seed, Stream::kPrompts, stream));
    request.prompt.insert(request.prompt.end(), text.begin(), text.end());
    requests.push_back(std::move(request));
  }
  return requests;
}

std::string describe_random(const profile::WorkloadOptions& options) {
  std::string text = fmt::format("random input {}-{} output {}-{} images {} seed {}", options.random.input_len.min,
                                 options.random.input_len.max, options.random.output_len.min,
                                 options.random.output_len.max, options.random.image_share, options.seed);
  for (const auto& [height, width] : options.random.image_sizes) text += fmt::format(" {}x{}", height, width);
  return text;
}

std::vector<Request> dataset_requests(const profile::WorkloadOptions& options, const Dataset& dataset,
                                      Renderer& renderer) {
  const std::size_t count = static_cast<std::size_t>(options.num_prompts), size = dataset.samples.size();
  std::vector<Request> requests;
  for (std::size_t i = 0; i < count; ++i) {
    const Sample& sample = dataset.samples[i % size];
    Request request;
    if (i < size) {
      Rendered rendered = renderer.render(dataset, sample);
      request.id = sample.id;
      request.prompt = std::move(rendered.ids);
      request.images = std::move(rendered.images);
    } else {
      request = requests[i % size];
      request.id = fmt::format("{}#{}", sample.id, i / size + 1);
    }
    request.max_tokens = std::min(options.max_tokens, sample.max_tokens.value_or(options.max_tokens));
    requests.push_back(std::move(request));
  }
  return requests;
}

/// Request i begins with the random tokens of group i % groups.
void add_shared_prefixes(std::vector<Request>& requests, const profile::WorkloadOptions& options,
                         const Renderer& renderer) {
  const auto groups = static_cast<std::size_t>(options.shared_prefix.groups);
  if (groups == 0) return;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto seed = derive_seed(options.seed, Stream::kPrefixes, i % groups);
    const auto prefix = random_tokens(renderer, options.shared_prefix.tokens, seed);
    requests[i].prompt.insert(requests[i].prompt.begin(), prefix.begin(), prefix.end());
  }
}

/// Teacher forcing: an answer of a conversation, the second half of a text.
Request quality_request(const Dataset& dataset, const Sample& sample, Renderer& renderer, const profile::Profile&) {
  Rendered rendered = renderer.render(dataset, sample);
  Request request;
  request.id = sample.id;
  request.task = sample.task;
  request.images = std::move(rendered.images);
  if (!sample.messages.empty()) {
    if (!sample.answer) {
      throw InputError(
          fmt::format("{}: request {}: has no \"answer\" to score", dataset.where(sample), one_line(sample.id, 80)));
    }
    auto answer = renderer.render_answer(*sample.answer);
    request.prompt = std::move(rendered.ids);
    request.forced = std::move(answer.ids);
    request.score_from = answer.score_from;
    return request;
  }
  if (rendered.ids.size() < 2) {
    throw InputError(
        fmt::format("{}: request {}: too short to be scored", dataset.where(sample), one_line(sample.id, 80)));
  }
  const auto half = static_cast<std::ptrdiff_t>(rendered.ids.size() / 2);
  request.prompt.assign(rendered.ids.begin(), rendered.ids.begin() + half);
  request.forced.assign(rendered.ids.begin() + half, rendered.ids.end());
  return request;
}

/// An answer and a text are forced to their end; a conversation without an answer generates.
Request calibration_request(const Dataset& dataset, const Sample& sample, Renderer& renderer,
                            const profile::Profile& profile) {
  Rendered rendered = renderer.render(dataset, sample);
  Request request;
  request.id = sample.id;
  request.task = sample.task;
  request.images = std::move(rendered.images);
  request.prompt = std::move(rendered.ids);
  if (sample.answer) {
    const auto answer = renderer.render_answer(*sample.answer).ids;
    request.prompt.insert(request.prompt.end(), answer.begin(), answer.end());
  }
  if (request.prompt.size() < 2) {
    throw InputError(
        fmt::format("{}: request {}: too short to calibrate on", dataset.where(sample), one_line(sample.id, 80)));
  }
  const int context = effective_max_model_len(profile.engine, renderer.config());
  const int room = context - static_cast<int>(request.prompt.size());
  request.max_tokens = std::min(profile.calibration.max_tokens, room);
  request.ignore_eos = true;
  if (!sample.messages.empty() && !sample.answer && request.max_tokens > 0) return request;
  request.max_tokens = 0;
  // All tokens pass through the cache but the last, which is forced: that makes the request end without generating.
  request.forced = {request.prompt.back()};
  request.prompt.pop_back();
  return request;
}

using MakeRequest = Request (*)(const Dataset&, const Sample&, Renderer&, const profile::Profile&);

Workload forced_workload(const profile::Profile& profile, const std::string& name, int num_samples, MakeRequest make,
                         Renderer& renderer) {
  const Dataset dataset = read_dataset(name);
  Workload workload;
  workload.dataset_name = name;
  workload.dataset_sha256 = dataset.sha256;
  const int max_model_len = effective_max_model_len(profile.engine, renderer.config());
  for (const std::size_t index : spread(dataset.samples.size(), static_cast<std::size_t>(num_samples))) {
    const Sample& sample = dataset.samples[index];
    Request request = make(dataset, sample, renderer, profile);
    request.stop_ids = renderer.stop_ids();
    check_limits(request, dataset.where(sample), profile.engine, max_model_len);
    workload.requests.push_back(std::move(request));
  }
  add_hashes(workload);
  return workload;
}

}  // namespace

Workload make_timing_workload(const profile::Profile& profile, Renderer& renderer) {
  const profile::WorkloadOptions& options = profile.workload;
  Workload workload;
  // Dummy weights often come without a tokenizer: a config is enough to time the shapes, on random tokens.
  const bool random = options.dataset == "random" || (profile.load_format == "dummy" && !renderer.has_tokenizer());
  workload.dataset_name = random ? "random" : options.dataset;
  std::optional<Dataset> dataset;
  if (random) {
    workload.dataset_sha256 = sha256_hex(describe_random(options));
    workload.requests = random_requests(options, renderer);
  } else {
    dataset = read_dataset(options.dataset);
    workload.dataset_sha256 = dataset->sha256;
    workload.requests = dataset_requests(options, *dataset, renderer);
  }
  add_shared_prefixes(workload.requests, options, renderer);
  const auto arrivals = arrival_times(options.num_prompts, options.request_rate, options.burstiness, options.seed);
  const int max_model_len = effective_max_model_len(profile.engine, renderer.config());
  for (std::size_t i = 0; i < workload.requests.size(); ++i) {
    Request& request = workload.requests[i];
    request.ignore_eos = options.ignore_eos;
    request.stop_ids = renderer.stop_ids();
    request.sampling = {options.temperature, options.top_p, options.top_k,
                        derive_seed(options.seed, Stream::kSampling, static_cast<std::uint64_t>(i))};
    request.arrival_s = arrivals[i];
    const std::string where =
        dataset ? dataset->where(dataset->samples[i % dataset->samples.size()]) : "workload.dataset random";
    check_limits(request, where, profile.engine, max_model_len);
  }
  add_hashes(workload);
  return workload;
}

Workload make_quality_workload(const profile::Profile& profile, Renderer& renderer) {
  return forced_workload(profile, profile.quality.dataset, profile.quality.num_samples, quality_request, renderer);
}

Workload make_calibration_workload(const profile::Profile& profile, Renderer& renderer) {
  return forced_workload(profile, profile.calibration.dataset, profile.calibration.num_samples, calibration_request,
                         renderer);
}

}  // namespace qwenbench::workload
