#include "run_command.h"

#include <ostream>

#include "command_main.h"
#include "dry_run.h"
#include "run_options.h"

namespace qwenbench::tools {

int run_command(const std::vector<std::string>& args, std::ostream& out, std::ostream&) {
  CLI::App app{"Measures latency, throughput and quality of KV-cache variants of one model, and judges them.",
               "qwenbench run"};
  RunArguments arguments;
  add_run_options(app, arguments);
  if (!parse_arguments(app, args, out)) return 0;
  const profile::Profile profile = load_profile(arguments);
  return dry_run(profile, arguments.assume_devices, out);
}

}  // namespace qwenbench::tools
