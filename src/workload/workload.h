// Profile + dataset + seed -> the requests of an experiment, with their arrival times and hashes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "profile/profile.h"
#include "workload/renderer.h"
#include "workload/request.h"

namespace qwenbench::workload {

struct Workload {
  std::string dataset_name;     // as the profile says
  std::string dataset_sha256;   // of the file; of the parameters, where it is "random"
  std::string requests_sha256;  // of all that the engine is given
  std::string images_sha256;    // "" without pictures
  std::vector<Request> requests;
};

/// The timed requests: num_prompts of the dataset in its order, repeated where it is smaller, or random ones. Throws
/// InputError naming dataset line and request: longer than max_model_len, more pictures than limit_mm_per_prompt, ...
Workload make_timing_workload(const profile::Profile& profile, Renderer& renderer);

/// The scored requests, teacher-forced: a conversation's answer and its <|im_end|>, or the second half of a plain text.
/// quality.num_samples of them, spread over the dataset. A conversation without an answer is an InputError.
Workload make_quality_workload(const profile::Profile& profile, Renderer& renderer);

/// The calibration set: whole texts, and conversations with their answers where there are any. Such a request passes
/// through the cache and generates nothing (its last token alone is forced). A conversation without an answer generates
/// calibration.max_tokens tokens, or none where that is 0 or the context is full.
Workload make_calibration_workload(const profile::Profile& profile, Renderer& renderer);

/// max_model_len as it holds: the profile's, or the model's where that says 0; throws InputError where the profile's
/// exceeds the model's.
int effective_max_model_len(const profile::EngineOptions& engine, const model::ModelConfig& config);

/// Hashes over a canonical text of the requests, and over the pictures in order; "" for no picture.
std::string hash_requests(std::span<const Request> requests);
std::string hash_images(std::span<const Request> requests);

/// Arrival times in seconds of `count` requests, sorted: all 0 where the rate is infinite, else gaps of a gamma
/// distribution with shape `burstiness` and mean 1 / rate (vLLM's; 1 is a Poisson process).
std::vector<double> arrival_times(int count, double request_rate, double burstiness, std::uint64_t seed);

}  // namespace qwenbench::workload
