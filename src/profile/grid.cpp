#include "profile/grid.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "base/error.h"
#include "base/sha256.h"
#include "profile/document.h"

namespace qwenbench::profile {
namespace {

constexpr std::size_t kMostCells = 10000;
constexpr std::size_t kLongestId = 80;

using Settings = std::vector<std::pair<std::string, std::string>>;

[[noreturn]] void fail(const std::string& source, const std::string& what) {
  throw InputError(fmt::format("{}: {}", source, what));
}

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string label_of(const Json& json) { return json.is_string() ? json.get<std::string>() : text_of(json); }

Axis read_axis(const std::string& name, const Json& json, const std::string& source) {
  Axis axis{name, {}};
  if (json.is_array()) {
    for (const Json& value : json) axis.values.push_back({label_of(value), {{name, text_of(value)}}});
  } else if (json.is_object()) {
    for (const auto& [label, fields] : json.items()) {
      if (!fields.is_object() || fields.empty()) {
        fail(source, fmt::format("axes.{}.{} must be an object of fields, as in {{\"engine.max_num_seqs\": 8}}",
                                 one_line(name, 60), one_line(label, 60)));
      }
      AxisValue& value = axis.values.emplace_back(AxisValue{label, {}});
      for (const auto& [path, setting] : fields.items()) value.settings.emplace_back(path, text_of(setting));
    }
  } else {
    fail(source, fmt::format("axes.{} must be a list of values, or an object of linked fields", one_line(name, 60)));
  }
  if (axis.values.empty()) fail(source, fmt::format("axes.{} has no value", one_line(name, 60)));
  std::set<std::string> labels;
  for (const AxisValue& value : axis.values) {
    if (!labels.insert(value.label).second) {
      fail(source, fmt::format("axes.{} has the value {} twice", one_line(name, 60), one_line(value.label, 60)));
    }
  }
  return axis;
}

std::vector<Axis> read_axes(const Json& json, const std::string& source) {
  if (!json.is_object() || json.empty()) {
    fail(source, "axes must be an object, as in {\"engine.max_num_seqs\": [4, 8]}");
  }
  std::vector<Axis> axes;
  for (const auto& [name, values] : json.items()) axes.push_back(read_axis(name, values, source));
  return axes;
}

/// One combination that is left out: labels by axis.
using Exclude = std::vector<std::pair<std::size_t, std::string>>;

std::vector<Exclude> read_excludes(const Json& json, const std::vector<Axis>& axes, const std::string& source) {
  if (!json.is_array()) fail(source, "exclude must be a list of objects");
  std::vector<Exclude> excludes;
  for (const Json& entry : json) {
    const std::string where = fmt::format("exclude[{}]", excludes.size());
    if (!entry.is_object() || entry.empty()) fail(source, where + " must be an object of axes and their values");
    Exclude& exclude = excludes.emplace_back();
    for (const auto& [name, value] : entry.items()) {
      const auto axis =
          std::find_if(axes.begin(), axes.end(), [&wanted = name](const Axis& a) { return a.name == wanted; });
      if (axis == axes.end()) fail(source, fmt::format("{}: {} is no axis", where, one_line(name, 60)));
      const std::string label = label_of(value);
      const bool known =
          std::any_of(axis->values.begin(), axis->values.end(), [&](const AxisValue& v) { return v.label == label; });
      if (!known) fail(source, fmt::format("{}: {} never is {}", where, one_line(name, 60), one_line(label, 60)));
      exclude.emplace_back(static_cast<std::size_t>(axis - axes.begin()), label);
    }
  }
  return excludes;
}

bool matches(const Exclude& exclude, const std::vector<Axis>& axes, const std::vector<std::size_t>& choice) {
  return std::all_of(exclude.begin(), exclude.end(),
                     [&](const auto& one) { return axes[one.first].values[choice[one.first]].label == one.second; });
}

void read_objective(const Json& json, const std::string& source, Objective& objective) {
  if (!json.is_object()) fail(source, "objective must be an object, as in {\"metric\": \"output_throughput\"}");
  for (const auto& [key, value] : json.items()) {
    std::string* text = key == "metric" ? &objective.metric : key == "variant" ? &objective.variant : nullptr;
    if (text == nullptr) fail(source, fmt::format("objective has metric and variant, not {}", one_line(key, 60)));
    if (!value.is_string()) fail(source, fmt::format("objective.{} must be a text", key));
    *text = value.get<std::string>();
  }
}

/// The parts of the file that are no profile, taken out of it.
Json take(Json& json, const char* key) {
  if (!json.is_object() || !json.contains(key)) return nullptr;
  Json value = json[key];
  json.erase(key);
  return value;
}

/// "max_num_seqs" of "engine.max_num_seqs", where no other axis ends alike.
std::string short_name(const std::vector<Axis>& axes, const std::string& name) {
  const auto last = [](const std::string& path) { return path.substr(path.rfind('.') + 1); };
  const auto same = std::count_if(axes.begin(), axes.end(), [&](const Axis& a) { return last(a.name) == last(name); });
  return same == 1 ? last(name) : name;
}

std::string id_of(const std::vector<Axis>& axes, const std::vector<std::size_t>& choice) {
  std::string id, identity;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const std::string& label = axes[i].values[choice[i]].label;
    id += (id.empty() ? "" : "_") + short_name(axes, axes[i].name) + "-" + label;
    identity += axes[i].name + "=" + label + "\n";
  }
  for (char& c : id) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '-' && c != '.') c = '+';
  }
  return fmt::format("{}-{}", id.substr(0, kLongestId), sha256_hex(identity).substr(0, 8));
}

class Builder {
 public:
  Builder(Document document, const std::vector<std::string>& overrides)
      : document_(std::move(document)), overrides_(overrides) {}

  Sweep build() {
    const Json axes = take(document_.json, "axes"), exclude = take(document_.json, "exclude"),
               objective = take(document_.json, "objective"), constraints = take(document_.json, "constraints"),
               pareto = take(document_.json, "pareto");
    const std::string& source = document_.source;
    if (axes.is_null()) fail(source, "is no sweep: it has no axes (see docs/sweep.md)");
    sweep_.axes = read_axes(axes, source);
    if (!exclude.is_null()) excludes_ = read_excludes(exclude, sweep_.axes, source);
    if (!objective.is_null()) read_objective(objective, source, sweep_.objective);
    if (!pareto.is_null()) read_pareto(pareto);
    make_cells();
    if (!constraints.is_null()) read_constraints(constraints);
    sweep_.name = sweep_.cells.front().profile.name;
    std::string all;
    for (const Cell& cell : sweep_.cells) all += cell.id + "\n" + to_json(cell.profile) + "\n";
    sweep_.hash = sha256_hex(all);
    return std::move(sweep_);
  }

 private:
  void read_pareto(const Json& json) {
    sweep_.pareto.clear();
    for (const Json& name : json) {
      if (!name.is_string()) fail(document_.source, "pareto must be a list of metrics");
      sweep_.pareto.push_back(name.get<std::string>());
    }
    if (sweep_.pareto.size() < 2) fail(document_.source, "pareto needs two metrics or more");
  }

  /// They have the form of slo: read as such.
  void read_constraints(const Json& json) {
    Document limits = document_;
    limits.json["slo"] = json;
    try {
      sweep_.constraints = build_profile(limits, settings_of(sweep_.cells.front().choice)).slo;
    } catch (const InputError& error) {
      std::string text = error.what();
      if (const auto at = text.find("slo"); at != std::string::npos) text.replace(at, 3, "constraints");
      throw InputError(text);
    }
  }

  std::vector<std::string> settings_of(const std::vector<std::size_t>& choice) const {
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < choice.size(); ++i) {
      for (const auto& [path, value] : sweep_.axes[i].values[choice[i]].settings) texts.push_back(path + "=" + value);
    }
    texts.insert(texts.end(), overrides_.begin(), overrides_.end());
    return texts;
  }

  void make_cells() {
    std::size_t all = 1;
    for (const Axis& axis : sweep_.axes) {
      all *= axis.values.size();
      if (all > kMostCells) fail(document_.source, fmt::format("has more than {} cells", kMostCells));
    }
    std::vector<bool> used(excludes_.size());
    for (std::size_t index = 0; index < all; ++index) {
      const std::vector<std::size_t> choice = choice_of(index);
      bool excluded = false;
      for (std::size_t e = 0; e < excludes_.size(); ++e) {
        if (matches(excludes_[e], sweep_.axes, choice)) used[e] = excluded = true;
      }
      if (!excluded) sweep_.cells.push_back(make_cell(choice));
    }
    for (std::size_t e = 0; e < used.size(); ++e) {
      if (!used[e]) fail(document_.source, fmt::format("exclude[{}] fits no cell", e));
    }
    if (sweep_.cells.empty()) fail(document_.source, "exclude leaves no cell");
  }

  std::vector<std::size_t> choice_of(std::size_t index) const {
    std::vector<std::size_t> choice(sweep_.axes.size());
    for (std::size_t i = choice.size(); i-- > 0;) {
      choice[i] = index % sweep_.axes[i].values.size();
      index /= sweep_.axes[i].values.size();
    }
    return choice;
  }

  Cell make_cell(const std::vector<std::size_t>& choice) {
    Cell cell{id_of(sweep_.axes, choice), choice, {}};
    try {
      cell.profile = build_profile(document_, settings_of(choice));
    } catch (const InputError& error) {
      throw InputError(
          fmt::format("{} (cell {}; leave it out with exclude)", error.what(), describe_cell(sweep_, cell)));
    }
    return cell;
  }

  Document document_;
  const std::vector<std::string>& overrides_;
  std::vector<Exclude> excludes_;
  Sweep sweep_;
};

}  // namespace

Sweep load_sweep(const std::string& name, const std::vector<std::string>& overrides) {
  return Builder(read_document(name), overrides).build();
}

Sweep parse_sweep(const std::string& text, const std::string& source, const std::filesystem::path& folder,
                  const std::vector<std::string>& overrides) {
  return Builder(parse_document(text, source, folder), overrides).build();
}

std::string describe_cell(const Sweep& sweep, const Cell& cell) {
  std::string text;
  for (std::size_t i = 0; i < sweep.axes.size(); ++i) {
    text += fmt::format("{}{}={}", i == 0 ? "" : " ", short_name(sweep.axes, sweep.axes[i].name),
                        sweep.axes[i].values[cell.choice[i]].label);
  }
  return text;
}

}  // namespace qwenbench::profile
