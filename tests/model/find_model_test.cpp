#include <cstdlib>

#include "model/model_files.h"
#include "model/weights.h"

using namespace qwenbench;
using namespace qwenbench::model;
namespace fs = std::filesystem;

namespace {

/// The environment as the test wants it, and as it was afterwards.
class Environment {
 public:
  explicit Environment(std::vector<std::pair<const char*, std::string>> values) {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      const char* value = std::getenv(name);
      if (value != nullptr) before_.emplace_back(name, value);
      ::unsetenv(name);
    }
    for (const auto& [name, value] : values) ::setenv(name, value.c_str(), 1);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment() {
    for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) ::unsetenv(name);
    for (const auto& [name, value] : before_) ::setenv(name, value.c_str(), 1);
  }

 private:
  std::vector<std::pair<const char*, std::string>> before_;
};

/// The cache's layout as huggingface_hub makes it.
fs::path add_model(const fs::path& cache, const std::string& commit, bool with_reference) {
  const fs::path repository = cache / "models--Org--Model-1.5_x";
  const fs::path snapshot = repository / "snapshots" / commit;
  write_file_atomically(snapshot / "config.json", "{}");
  if (with_reference) write_file_atomically(repository / "refs" / "main", commit);
  return snapshot;
}

}  // namespace

TEST_CASE("find_model: a folder is itself") { CHECK(find_model(kFixtures.string()) == kFixtures); }

TEST_CASE("find_model: the cache where Hugging Face's tools would put it") {
  TemporaryFolder folder;
  const std::string root = folder.path().string(), id = "Org/Model-1.5_x";
  const fs::path a = add_model(folder.path() / "a", "abc123", true),
                 b = add_model(folder.path() / "b" / "hub", "def", true);
  const fs::path c = add_model(folder.path() / "c" / "huggingface" / "hub", "c1", true),
                 d = add_model(folder.path() / ".cache/huggingface/hub", "d1", true);
  const auto found_with = [&](const std::vector<std::pair<const char*, std::string>>& values) {
    const Environment environment(values);
    return find_model(id);
  };
  CHECK(found_with({{"HF_HUB_CACHE", root + "/a"}, {"HF_HOME", root + "/b"}, {"HOME", root}}) == a);
  CHECK(found_with({{"HF_HOME", root + "/b"}, {"HOME", root}}) == b);
  CHECK(found_with({{"XDG_CACHE_HOME", root + "/c"}, {"HOME", root}}) == c);
  CHECK(found_with({{"HOME", root}}) == d);
}

TEST_CASE("find_model: which snapshot") {
  TemporaryFolder folder;
  const Environment environment({{"HF_HUB_CACHE", folder.path().string()}});
  const fs::path first = add_model(folder.path(), "111", false);
  CHECK(find_model("Org/Model-1.5_x") == first);
  const fs::path second = add_model(folder.path(), "222", false);
  const std::string command = "fetch it with: hf download Org/Model-1.5_x";
  CHECK_CONTAINS(error_of([] { (void)find_model("Org/Model-1.5_x"); }), command);
  write_file_atomically(folder.path() / "models--Org--Model-1.5_x" / "refs" / "main", "222\n");
  CHECK(find_model("Org/Model-1.5_x") == second);
  for (const char* reference : {"333", "../../other", ""}) {
    write_file_atomically(folder.path() / "models--Org--Model-1.5_x" / "refs" / "main", reference);
    CHECK_CONTAINS(error_of([] { (void)find_model("Org/Model-1.5_x"); }), command);
  }
}

TEST_CASE("find_model: nothing there") {
  TemporaryFolder folder;
  const Environment environment({{"HF_HUB_CACHE", (folder.path() / "none").string()}});
  CHECK_CONTAINS(error_of([] { (void)find_model("cpatonn/Qwen3-VL-32B-Thinking-AWQ-4bit"); }),
                 "fetch it with: hf download cpatonn/Qwen3-VL-32B-Thinking-AWQ-4bit");
  for (const char* name :
       {"/no/such/folder", "no-such-folder", "", "a/b/c", "../x", "org/", "/name", "org/na me", "org/x;rm -r"}) {
    CAPTURE(name);
    CHECK_CONTAINS(error_of([&] { (void)find_model(name); }), "no such folder, and not a hub id");
  }
  CHECK_CONTAINS(error_of([] { (void)find_model((kFixtures / "linears" / "config.json").string()); }), "not a folder");
}
