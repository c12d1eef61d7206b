#include "parity/synthetic_checkpoint.h"

#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "base/dtype.h"
#include "model/safetensors.h"

namespace qwenbench::parity {
namespace {

namespace fs = std::filesystem;

/// One line of weights.txt.
struct Recipe {
  std::string name;
  std::vector<std::int64_t> shape;
  bool gauss = false;
  int offset = 0, bits = 0, shift = 0;

  explicit Recipe(const std::string& line) {
    std::istringstream in(line);
    std::string dims, kind, dim;
    in >> name >> dims >> kind;
    gauss = kind == "gauss";
    if (!gauss) in >> offset >> bits;
    in >> shift;
    if (!in || (!gauss && kind != "uniform")) throw std::runtime_error("weights.txt: " + line);
    for (std::istringstream list(dims); std::getline(list, dim, 'x');) shape.push_back(std::stoll(dim));
  }

  std::vector<std::uint16_t> values() const {
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001b3u;
    std::size_t count = 1;
    for (const std::int64_t d : shape) count *= static_cast<std::size_t>(d);
    std::vector<std::uint16_t> out(count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t random = mix(hash + (i + 1) * 0x9e3779b97f4a7c15u);
      out[i] = float_to_bf16(std::ldexp(static_cast<float>(integer(random)), -shift));
    }
    return out;
  }

 private:
  static std::uint64_t mix(std::uint64_t z) {  // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  int integer(std::uint64_t random) const {
    if (!gauss) return offset + static_cast<int>(random & ((1u << bits) - 1));
    int sum = -126;
    for (int field = 0; field < 4; ++field) sum += static_cast<int>((random >> (8 * field)) & 63);
    return sum;
  }
};

void write(const fs::path& source, const fs::path& target) {
  std::ifstream recipes(source / "weights.txt");
  if (!recipes) throw std::runtime_error("no " + (source / "weights.txt").string());
  std::vector<model::SafetensorsItem> items;
  nlohmann::json weight_map;
  for (std::string line; std::getline(recipes, line);) {
    const Recipe recipe(line);
    weight_map[recipe.name] = "plain.safetensors";
    items.push_back({recipe.name, DType::kBF16, recipe.shape, [recipe](const model::AppendBytes& append) {
                       const auto values = recipe.values();
                       append(values.data(), values.size() * sizeof(values[0]));
                     }});
  }
  const bool sharded = fs::exists(source / "quantized.safetensors");
  model::write_safetensors(target / (sharded ? "plain.safetensors" : "model.safetensors"), std::move(items));
  fs::copy_file(source / "config.json", target / "config.json");
  if (!sharded) return;
  fs::copy_file(source / "quantized.safetensors", target / "quantized.safetensors");
  const model::SafetensorsFile quantized(source / "quantized.safetensors");
  for (const auto& [name, entry] : quantized.header().tensors) weight_map[name] = "quantized.safetensors";
  std::ofstream(target / "model.safetensors.index.json")
      << nlohmann::json{{"metadata", nlohmann::json::object()}, {"weight_map", weight_map}};
}

class Workspace {
 public:
  Workspace() {
    std::string pattern = (fs::temp_directory_path() / "qwenbench-parity-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make " + pattern);
    root_ = pattern;
  }
  ~Workspace() {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  fs::path get(const std::string& name) {
    const fs::path target = root_ / name;
    if (fs::create_directory(target)) write(fs::path("fixtures/parity") / name, target);
    return target;
  }

 private:
  fs::path root_;
};

}  // namespace

fs::path checkpoint(const std::string& name) {
  static Workspace workspace;
  return workspace.get(name);
}

}  // namespace qwenbench::parity
