#include <filesystem>

#include "command_main.h"
#include "dispatch.h"

int main(int argc, char** argv) {
  return qwenbench::tools::command_main(argc, argv, [](const auto& args, std::ostream& out, std::ostream&) {
    std::error_code error;
    const auto executable = std::filesystem::read_symlink("/proc/self/exe", error);
    return qwenbench::tools::dispatch(executable.parent_path(), args, out);
  });
}
