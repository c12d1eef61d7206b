#include <fmt/format.h>

#include "base/sha256.h"
#include "workload/workload.h"

namespace qwenbench::workload {
namespace {

void add_ids(Sha256& hash, const std::vector<std::int32_t>& ids) {
  hash.update(fmt::format("{}:", ids.size())).update(ids.data(), ids.size() * sizeof(std::int32_t));
}

}  // namespace

std::string hash_requests(std::span<const Request> requests) {
  Sha256 hash;
  for (const auto& request : requests) {
    const auto& sampling = request.sampling;
    hash.update(fmt::format("{}:{}{}:{}", request.id.size(), request.id, request.task.size(), request.task));
    hash.update(fmt::format(";{};{};{:.17g};{:.17g};{};{};{:.6f};{};", request.max_tokens, request.ignore_eos,
                            sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed, request.arrival_s,
                            request.score_from));
    add_ids(hash, request.prompt);
    add_ids(hash, request.forced);
    add_ids(hash, request.stop_ids);
    for (const auto& image : request.images) hash.update(image->sha256);
  }
  return hash.hex();
}

std::string hash_images(std::span<const Request> requests) {
  Sha256 hash;
  bool any = false;
  for (const auto& request : requests) {
    for (const auto& image : request.images) {
      hash.update(image->sha256);
      any = true;
    }
  }
  return any ? hash.hex() : "";
}

}  // namespace qwenbench::workload
