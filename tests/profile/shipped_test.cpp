#include <doctest/doctest.h>

#include <filesystem>

#include "base/atomic_file.h"
#include "profile/grid.h"

using namespace qwenbench;
using namespace qwenbench::profile;

TEST_CASE("every shipped profile loads, and survives a round trip") {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(home() / "profiles")) {
    if (entry.path().extension() != ".json") continue;
    CAPTURE(entry.path().string());
    if (read_file(entry.path()).find("\"axes\"") != std::string::npos) {
      CHECK(load_sweep(entry.path().stem().string(), {}).cells.size() > 1);
      continue;
    }
    const Profile p = load_profile(entry.path().stem().string(), {});
    CHECK(p.name == entry.path().stem().string());
    CHECK(to_json(parse_profile(to_json(p), p.name, {})) == to_json(p));
    ++count;
  }
  CHECK(count >= 3);
}

TEST_CASE("tiny-vl-full extends tiny-vl and asks every question") {
  const Profile quick = load_profile("tiny-vl", {}), full = load_profile("tiny-vl-full", {});
  CHECK(full.model == quick.model);
  CHECK(full.quality.num_samples == 0);
  CHECK(full.name == "tiny-vl-full");
}
