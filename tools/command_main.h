// What every subcommand shares: its main(), the mapping of errors to exit codes, and argument parsing.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

namespace CLI {  // costs seconds to include
class App;
}

namespace qwenbench::tools {

/// A subcommand: arguments without the program's name -> exit code. Results go to `out`, progress and warnings to
/// `err`.
using Command = std::function<int(const std::vector<std::string>& args, std::ostream& out, std::ostream& err)>;

/// Runs the command; the only place that catches. Every failure is one line "qwenbench: error: ..." on err, and its
/// exit code: what an Error carries, 5 where memory ran out, 2 for what nobody foresaw.
int guarded(const Command& command, const std::vector<std::string>& args, std::ostream& out, std::ostream& err);

/// main() of a subcommand: Ctrl-C handler, stdout and stderr, guarded().
int command_main(int argc, char** argv, const Command& command);

/// False where --help or --version was asked for and answered on `out`. Throws InputError that points to --help.
bool parse_arguments(CLI::App& app, const std::vector<std::string>& args, std::ostream& out);

/// The command as a shell would take it: "qwenbench run --profile tiny-vl".
std::string shell_text(const std::string& command, const std::vector<std::string>& args);

/// "0.1.0"
std::string version();

}  // namespace qwenbench::tools
