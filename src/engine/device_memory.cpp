// The devices of a memory plan, where they are not asked but assumed.
#include <fmt/format.h>

#include <regex>

#include "base/error.h"
#include "engine/memory_plan.h"

namespace qwenbench::engine {

DeviceMemory parse_devices(const std::string& text) {
  static const std::regex form(R"((?:([1-9]\d?)x)?(\d{1,6}(?:\.\d{1,3})?)(GiB|MiB),sm_(\d{2,3})a?)");
  std::smatch match;
  if (text.size() > 64 || !std::regex_match(text, match, form) || std::stod(match[2]) <= 0) {
    throw InputError(
        fmt::format("--assume-devices {}: expected [COUNTx]MEMORY,sm_CC, as in 2x24GiB,sm_89", one_line(text, 64)));
  }
  DeviceMemory devices;
  devices.is_gpu = true;
  devices.count = match[1].matched ? std::stoi(match[1]) : 1;
  devices.bytes = static_cast<std::int64_t>(std::stod(match[2]) * (match[3] == "GiB" ? 0x1p30 : 0x1p20));
  devices.sm_version = std::stoi(match[4]);
  devices.name =
      fmt::format("{} x {} {}, sm_{} (assumed)", devices.count, match[2].str(), match[3].str(), devices.sm_version);
  return devices;
}

}  // namespace qwenbench::engine
