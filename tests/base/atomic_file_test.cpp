#include "base/atomic_file.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <stdexcept>

#include "base/error.h"

using namespace qwenbench;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("qwenbench-atomic-" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

}  // namespace

TEST_CASE("atomic file: written whole, folder made, nothing left beside it") {
  Folder folder;
  const fs::path file = folder.path / "deep" / "a.json";
  write_file_atomically(file, "one");
  write_file_atomically(file, "two");
  CHECK(read_file(file) == "two");
  CHECK(std::distance(fs::directory_iterator(file.parent_path()), fs::directory_iterator()) == 1);
}

TEST_CASE("atomic file: a producer that fails leaves the old file") {
  Folder folder;
  const fs::path file = folder.path / "a.json";
  write_file_atomically(file, "old");
  CHECK_THROWS_AS(write_file_atomically(file,
                                        [](const auto& append) {
                                          append("half", 4);
                                          throw std::runtime_error("producer");
                                        }),
                  std::runtime_error);
  CHECK(read_file(file) == "old");
  CHECK(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator()) == 1);
}

TEST_CASE("atomic file: a full disk and an impossible folder are one-line input errors") {
  CHECK_THROWS_AS(write_file_atomically("/dev/null/x/a.json", "x"), InputError);
  CHECK_THROWS_AS(require_writable("/proc/nowhere/a.json"), InputError);
  CHECK_THROWS_AS(read_file("/nonexistent/file"), InputError);
}
