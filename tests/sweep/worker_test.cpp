// Cells in a child process: what dies there costs one cell.
#include "sweep/worker.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <thread>

#include "base/error.h"
#include "base/interrupt.h"

using namespace qwenbench;
using namespace qwenbench::sweep;

TEST_CASE("worker: codes, errors, crashes; the next cell runs all the same") {
  int state = 0;  // of the child: what cells of a group share
  WorkerOptions options;
  options.run = [&](std::size_t index) {
    ++state;
    if (index == 1) throw InputError("bad\ncell");
    ::signal(SIGABRT, SIG_DFL);  // the test library has a handler of its own
    if (index == 2) std::abort();
    if (index == 3) throw std::bad_alloc();
    if (index == 4) throw DeviceError("gone");
    if (index == 5) ::_exit(3);
    if (index == 6) ::kill(::getpid(), SIGKILL);
    return state == 1 || index < 2 ? 0 : 1;
  };
  std::vector<std::size_t> started, ended;
  options.on_start = [&](std::size_t index) { started.push_back(index); };
  options.on_end = [&](std::size_t index, const CellOutcome&) { ended.push_back(index); };
  const auto outcomes = run_in_child(9, options);
  CHECK(started == std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(ended == started);
  CHECK(outcomes[0].exit_code == 0);
  CHECK(outcomes[1].exit_code == 2);
  CHECK(outcomes[1].message == "bad cell");
  CHECK(outcomes[2].exit_code == 5);
  CHECK(outcomes[2].message.find("killed by signal 6") != std::string::npos);
  CHECK(outcomes[3].message == "out of memory");
  CHECK(outcomes[4].message == "gone");
  CHECK(outcomes[5].message == "the process ended with exit code 3");
  CHECK(outcomes[6].message.find("out of memory?") != std::string::npos);
  CHECK(outcomes[7].exit_code == 0);  // a fresh child: state was 0
  CHECK(outcomes[8].exit_code == 1);  // the same child again
  CHECK(state == 0);                  // nothing of it in the parent
}

TEST_CASE("worker: Ctrl-C is handed on, and ends the group") {
  install_interrupt_handler();  // as main() does
  WorkerOptions options;
  options.run = [](std::size_t) {
    while (!interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return 130;
  };
  options.on_start = [](std::size_t) { set_interrupted(true); };
  const auto outcomes = run_in_child(2, options);
  set_interrupted(false);
  CHECK(outcomes[0].exit_code == 130);
  CHECK(outcomes[1].exit_code == -1);
}

TEST_CASE("worker: it does not outlive its parent") {
  const auto file = std::filesystem::temp_directory_path() / ("qwenbench_worker_" + std::to_string(::getpid()));
  const pid_t parent = ::fork();
  if (parent == 0) {
    WorkerOptions options;
    options.run = [&](std::size_t) {
      std::ofstream(file) << ::getpid() << std::flush;
      while (true) ::pause();
      return 0;
    };
    run_in_child(1, options);
    ::_exit(0);
  }
  pid_t worker = 0;
  while (worker == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    std::ifstream(file) >> worker;
  }
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  bool gone = false;
  for (int i = 0; i < 500 && !gone; ++i) {
    // Dead and not yet reaped by whoever inherits it counts as gone.
    std::string state;
    std::ifstream status("/proc/" + std::to_string(worker) + "/stat");
    gone = !status;
    for (int word = 0; status && word < 3; ++word) status >> state;
    gone |= state == "Z" || state == "X";
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(gone);
  if (!gone) ::kill(worker, SIGKILL);
  std::filesystem::remove(file);
}
