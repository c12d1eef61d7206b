// Any bytes are a profile, or an InputError of one line; what is accepted survives a round trip.
#include <cstdlib>

#include "base/error.h"
#include "profile/profile.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qwenbench;
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const std::string resolved = profile::to_json(profile::parse_profile(text, "fuzz", {}));
    if (profile::to_json(profile::parse_profile(resolved, "fuzz", {})) != resolved) std::abort();
  } catch (const InputError& error) {
    if (std::string(error.what()).find('\n') != std::string::npos) std::abort();
  }
  return 0;
}
