#include "base/wsl.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <sstream>

namespace qwenbench {

bool is_wsl(std::string_view proc_version) {
  std::string lower(proc_version);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  return lower.find("microsoft") != std::string::npos;
}

bool running_under_wsl() {
  std::ostringstream text;
  text << std::ifstream("/proc/version").rdbuf();
  return is_wsl(text.str());
}

}  // namespace qwenbench
