#include "command_main.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <new>

#include "base/error.h"
#include "base/interrupt.h"

namespace qwenbench::tools {
namespace {

int fail(std::ostream& err, const std::string& message, ExitCode code) {
  err << "qwenbench: error: " << one_line(message, 1000) << "\n" << std::flush;
  return static_cast<int>(code);
}

/// Laid out here, so that it does not change with the library's version.
std::string help_of(const CLI::App& app) {
  std::string text = fmt::format("{}\nUsage: {} [OPTIONS]\n\nOptions:\n", app.get_description(), app.get_name());
  for (const CLI::Option* option : app.get_options()) {
    std::string names = "  " + option->get_name(false, true);
    if (!option->get_type_name().empty()) names += " " + option->get_type_name();
    text += names.size() < 32 ? fmt::format("{:<32}", names) : fmt::format("{}\n{:<32}", names, "");
    text += option->get_description() + "\n";
  }
  return text;
}

}  // namespace

int guarded(const Command& command, const std::vector<std::string>& args, std::ostream& out, std::ostream& err) {
  try {
    const int code = command(args, out, err);
    out.flush();
    if (!out) return fail(err, "standard output cannot be written (a full disk or a closed pipe)", ExitCode::kInput);
    return code;
  } catch (const Error& error) {
    return fail(err, error.what(), error.code());
  } catch (const std::bad_alloc&) {
    return fail(err, "out of memory: lower engine.max_model_len, engine.max_num_batched_tokens or the workload",
                ExitCode::kDevice);
  } catch (const std::exception& error) {
    return fail(err, fmt::format("internal error: {} (please report it)", error.what()), ExitCode::kInput);
  }
}

int command_main(int argc, char** argv, const Command& command) {
  std::ios::sync_with_stdio(false);
  install_interrupt_handler();
  return guarded(command, std::vector<std::string>(argv + std::min(argc, 1), argv + argc), std::cout, std::cerr);
}

bool parse_arguments(CLI::App& app, const std::vector<std::string>& args, std::ostream& out) {
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
    return true;
  } catch (const CLI::CallForHelp&) {
    out << help_of(app);
  } catch (const CLI::CallForVersion& version_text) {
    out << version_text.what() << "\n";
  } catch (const CLI::ParseError& error) {
    throw InputError(fmt::format("{} (see {} --help)", one_line(error.what()), app.get_name()));
  }
  return false;
}

std::string shell_text(const std::string& command, const std::vector<std::string>& args) {
  std::string text = command;
  for (const auto& arg : args) {
    const bool plain = !arg.empty() && arg.find_first_not_of(
                                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                           "0123456789_-+=./,:@%") == std::string::npos;
    if (plain) {
      text += " " + arg;
      continue;
    }
    text += " '";
    for (const char c : arg) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
    text += "'";
  }
  return text;
}

std::string version() { return QWENBENCH_VERSION; }

}  // namespace qwenbench::tools
