#include "base/wsl.h"
#include "measure/environment.h"

#include <doctest/doctest.h>

using namespace qwenbench;

TEST_CASE("environment: what /proc/cpuinfo says") {
  const std::string core =
      "processor\t: 0\nmodel name\t: AMD EPYC 9V74\nphysical id\t: 0\nflags\t\t: fpu sse2 avx2 fma avx512f "
      "avx512bw\n\n";
  CHECK(measure::describe_cpu(core) == "AMD EPYC 9V74, 1 socket, 1 thread, AVX-512");
  CHECK(measure::describe_cpu(core + core) == "AMD EPYC 9V74, 1 socket, 2 threads, AVX-512");
  CHECK(measure::describe_cpu("processor : 0\nmodel name : X\nflags : sse2 avx2 fma\n") == "X, 1 thread, AVX2");
  CHECK(measure::describe_cpu("processor : 0\nmodel name : X\nflags : sse2 avx2\n") == "X, 1 thread, SSE2");
  CHECK(measure::describe_cpu("processor : 0\nmodel name : Y\nFeatures : fp asimd\n") == "Y, 1 thread, NEON");
  CHECK(measure::describe_cpu("") == "");
  CHECK(measure::describe_cpu("no colon\n:\n: :\n") == "");
}

TEST_CASE("environment: WSL by its kernel") {
  CHECK(qwenbench::is_wsl("Linux version 5.15.153.1-microsoft-standard-WSL2 (root@x)"));
  CHECK(qwenbench::is_wsl("Linux version 4.4.0-19041-Microsoft"));
  CHECK_FALSE(qwenbench::is_wsl("Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org)"));
}

TEST_CASE("environment: this host") {
  const report::Environment host = measure::host_environment();
  CHECK((host.build_commit.empty() || host.build_commit.size() == 40));
  CHECK(host.git_is_dirty.has_value() == !host.build_commit.empty());
  CHECK(host.compiler.find(' ') != std::string::npos);
  CHECK(host.cpu_cores >= 1);
  CHECK(host.memory_size > (64 << 20));
  CHECK(host.os.starts_with("Linux"));
}
