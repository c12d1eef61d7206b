#include "measure/load.h"

#include <mutex>

namespace qwenbench::measure {

LoadedModel load_model(const profile::Profile& profile, const std::filesystem::path& directory, ProgressStyle style,
                       std::ostream& err) {
  LoadedModel loaded;
  loaded.weights = profile.load_format == "dummy" ? model::make_dummy_weights(directory, profile.workload.seed)
                                                  : model::open_checkpoint(directory);
  const auto total = static_cast<std::int64_t>(loaded.weights->total_bytes());
  Progress progress(err, style, "loading weights", total);
  std::mutex mutex;
  loaded.model = engine::Model::load(*loaded.weights, profile.engine, [&](std::size_t bytes) {
    const std::lock_guard lock(mutex);
    progress.advance(static_cast<std::int64_t>(bytes));
  });
  progress.set(total);  // what is read but not kept counts too
  return loaded;
}

}  // namespace qwenbench::measure
