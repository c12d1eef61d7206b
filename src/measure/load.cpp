#include "measure/load.h"

#include <fmt/format.h>

#include <chrono>
#include <mutex>

#include "backend/devices.h"

namespace qwenbench::measure {
namespace {

using Clock = std::chrono::steady_clock;

/// What loading took, beside what the link to the GPU can do.
std::string loading_summary(double bytes, Clock::duration took) {
  const double seconds = std::chrono::duration<double>(took).count();
  std::string text =
      fmt::format("weights: {:.1f} GB in {:.1f} s, {:.1f} GB/s", bytes * 1e-9, seconds, bytes * 1e-9 / seconds);
  if (const auto copies = backend::measure_copy_bandwidth())
    text += fmt::format("; copies to the GPU: {:.1f} GB/s from pinned memory, {:.1f} GB/s from pageable",
                        copies->pinned * 1e-9, copies->pageable * 1e-9);
  return text + "\n";
}

}  // namespace

LoadedModel load_model(const profile::Profile& profile, const std::filesystem::path& directory, ProgressStyle style,
                       std::ostream& err) {
  LoadedModel loaded;
  loaded.weights = profile.load_format == "dummy" ? model::make_dummy_weights(directory, profile.workload.seed)
                                                  : model::open_checkpoint(directory);
  const auto total = static_cast<std::int64_t>(loaded.weights->total_bytes());
  const auto begin = Clock::now();
  auto progress = std::make_unique<Progress>(err, style, "loading weights", total);
  std::mutex mutex;
  loaded.model = engine::Model::load(*loaded.weights, profile.engine, [&](std::size_t bytes) {
    const std::lock_guard lock(mutex);
    progress->advance(static_cast<std::int64_t>(bytes));
  });
  progress->set(total);  // what is read but not kept counts too
  progress.reset();
  if (style != ProgressStyle::kNone && loaded.model->memory().is_gpu && !loaded.weights->is_dummy())
    err << loading_summary(static_cast<double>(total), Clock::now() - begin);
  return loaded;
}

}  // namespace qwenbench::measure
