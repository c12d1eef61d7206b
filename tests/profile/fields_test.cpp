#include <doctest/doctest.h>

#include <set>

#include "profile/field.h"

using namespace qwenbench::profile;

TEST_CASE("field table: paths are unique, documented, and every default survives a round trip") {
  std::set<std::string> paths;
  const Profile defaults;
  for (const auto& field : profile_fields()) {
    CAPTURE(field.path);
    CHECK(paths.insert(field.path).second);
    CHECK_FALSE(field.doc.empty());
    CHECK_FALSE(field.expected.empty());
    const Json written = field.write(defaults);
    Profile copy;
    if (field.path == "name" || field.path == "model") continue;  // empty by default, and then not readable
    CHECK(field.read(copy, written));
    CHECK(field.write(copy) == written);
  }
}

TEST_CASE("field table: a value of a wrong type or out of range is refused and changes nothing") {
  struct Case {
    const char* path;
    Json bad;
  };
  const std::vector<Case> cases{{"engine.max_num_seqs", 0},
                                {"engine.max_num_seqs", 1.5},
                                {"engine.max_num_seqs", "8"},
                                {"engine.max_num_seqs", 1u << 31},
                                {"engine.block_size", nullptr},
                                {"engine.gpu_memory_utilization", 0},
                                {"engine.gpu_memory_utilization", 2},
                                {"engine.cuda_graphs", 1},
                                {"engine.device", "tpu"},
                                {"engine.limit_mm_per_prompt", 3},
                                {"workload.top_p", 0},
                                {"workload.request_rate", 0},
                                {"workload.request_rate", "fast"},
                                {"workload.input_len", {5, 3}},
                                {"workload.input_len", {1, 2, 3}},
                                {"workload.image_sizes", {{1, 2, 3}}},
                                {"workload.image_sizes", {{0, 2}}},
                                {"workload.seed", -1},
                                {"workload.seed", 18446744073709551615u},
                                {"quality.ceiling", {{"kld_mean", -1}}}};
  for (const auto& [path, bad] : cases) {
    CAPTURE(path);
    CAPTURE(bad.dump());
    bool found = false;
    for (const auto& field : profile_fields()) {
      if (field.path != path) continue;
      found = true;
      Profile profile;
      const Json before = field.write(profile);
      CHECK_FALSE(field.read(profile, bad));
      CHECK(field.write(profile) == before);
    }
    CHECK(found);
  }
}
