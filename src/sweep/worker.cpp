#include "sweep/worker.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <iostream>
#include <new>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "base/interrupt.h"

namespace qwenbench::sweep {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTickMs = 500;

// ---- the child ----

/// One line of the pipe: "start 3" | "end 3 0 MESSAGE".
void send(int fd, const std::string& line) {
  std::string text = line + "\n";
  for (std::size_t sent = 0; sent < text.size();) {
    const ssize_t n = ::write(fd, text.data() + sent, text.size() - sent);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) ::_exit(5);  // the parent is gone
    sent += static_cast<std::size_t>(n);
  }
}

/// False where the child had better not go on: its memory is in doubt.
bool run_one(std::size_t index, const WorkerOptions& options, int fd) {
  send(fd, fmt::format("start {}", index));
  int code = 2;
  std::string message;
  bool sound = true;
  try {
    code = options.run(index);
  } catch (const Error& error) {
    code = static_cast<int>(error.code());
    message = error.what();
    sound = error.code() != ExitCode::kDevice;
  } catch (const std::bad_alloc&) {
    code = static_cast<int>(ExitCode::kDevice);
    message = "out of memory";
    sound = false;
  } catch (const std::exception& error) {
    message = fmt::format("internal error: {}", error.what());
  }
  send(fd, fmt::format("end {} {} {}", index, code, one_line(message, 1000)));
  return sound && code != static_cast<int>(ExitCode::kCancelled);
}

[[noreturn]] void child(std::size_t begin, std::size_t count, const WorkerOptions& options, int fd) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // kill -9 of the parent must not leave a child at work
  ::setpgid(0, 0);                     // Ctrl-C on the terminal reaches the parent alone, which hands it on once
  for (std::size_t index = begin; index < count; ++index) {
    if (!run_one(index, options, fd)) break;
  }
  ::_exit(0);
}

// ---- the parent ----

class Group {
 public:
  Group(std::size_t count, const WorkerOptions& options) : options_(options), outcomes_(count) {}

  std::vector<CellOutcome> run() {
    while (next_ < outcomes_.size() && !interrupted() && !cancelled_) {
      start();
      read_all();
      finish();
    }
    return std::move(outcomes_);
  }

 private:
  void start() {
    int ends[2];
    std::cout.flush();
    std::cerr.flush();
    if (::pipe(ends) != 0) throw DeviceError(fmt::format("no pipe to a child process: {}", std::strerror(errno)));
    pid_ = ::fork();
    if (pid_ < 0) throw DeviceError(fmt::format("no child process: {}", std::strerror(errno)));
    if (pid_ == 0) {
      ::close(ends[0]);
      child(next_, outcomes_.size(), options_, ends[1]);
    }
    ::close(ends[1]);
    fd_ = ends[0];
    handed_on_ = false;
  }

  void read_all() {
    std::string pending;
    char buffer[4096];
    while (true) {
      if (interrupted() && !handed_on_) {
        ::kill(pid_, SIGINT);
        handed_on_ = true;
      }
      pollfd poll_fd{fd_, POLLIN, 0};
      const int ready = ::poll(&poll_fd, 1, kTickMs);
      if (options_.on_tick) options_.on_tick();
      if (ready <= 0) continue;
      const ssize_t n = ::read(fd_, buffer, sizeof buffer);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      pending.append(buffer, static_cast<std::size_t>(n));
      for (std::size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
        receive(pending.substr(0, end));
        pending.erase(0, end + 1);
      }
    }
    ::close(fd_);
  }

  void receive(const std::string& line) {
    std::istringstream in(line);
    std::string word, message;
    std::size_t index = 0;
    int code = 0;
    in >> word >> index;
    if (word == "start") {
      open_ = index;
      started_ = Clock::now();
      if (options_.on_start) options_.on_start(index);
      return;
    }
    in >> code;
    std::getline(in >> std::ws, message);
    close(code, message);
  }

  /// The item under way has ended.
  void close(int code, const std::string& message) {
    CellOutcome& outcome = outcomes_.at(*open_);
    outcome.exit_code = code;
    outcome.message = message;
    outcome.seconds = std::chrono::duration<double>(Clock::now() - started_).count();
    cancelled_ |= code == static_cast<int>(ExitCode::kCancelled);
    next_ = *open_ + 1;
    if (options_.on_end) options_.on_end(*open_, outcome);
    open_.reset();
  }

  void finish() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    if (!open_) {
      const bool nothing = WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
      if (nothing && !interrupted()) throw DeviceError("a child process ended before it began");
      return;
    }
    if (interrupted()) return close(static_cast<int>(ExitCode::kCancelled), "cancelled");
    const std::string why =
        WIFSIGNALED(status)
            ? fmt::format("the process was killed by signal {} ({}{})", WTERMSIG(status), ::strsignal(WTERMSIG(status)),
                          WTERMSIG(status) == SIGKILL ? "; out of memory?" : "")
            : fmt::format("the process ended with exit code {}", WEXITSTATUS(status));
    close(static_cast<int>(ExitCode::kDevice), why);
  }

  const WorkerOptions& options_;
  std::vector<CellOutcome> outcomes_;
  std::size_t next_ = 0;  // the first that has not run
  std::optional<std::size_t> open_;
  Clock::time_point started_;
  pid_t pid_ = -1;
  int fd_ = -1;
  bool handed_on_ = false, cancelled_ = false;
};

}  // namespace

std::vector<CellOutcome> run_in_child(std::size_t count, const WorkerOptions& options) {
  return Group(count, options).run();
}

}  // namespace qwenbench::sweep
