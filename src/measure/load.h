// Loads a model with a progress bar.
#pragma once

#include <filesystem>
#include <memory>
#include <ostream>

#include "base/progress.h"
#include "engine/model.h"
#include "model/weights.h"
#include "profile/profile.h"

namespace qwenbench::measure {

/// A loaded model and what it was loaded from.
struct LoadedModel {
  std::shared_ptr<const model::WeightSource> weights;
  std::shared_ptr<engine::Model> model;
};

/// The checkpoint in `directory`, or dummy weights where the profile says so.
LoadedModel load_model(const profile::Profile& profile, const std::filesystem::path& directory, ProgressStyle style,
                       std::ostream& err);

}  // namespace qwenbench::measure
