// Where a measurement ran: the host's part. The CUDA backend adds devices, driver and topology.
#pragma once

#include <string>
#include <string_view>

#include "report/result.h"

namespace qwenbench::measure {

/// Build (commit, compiler), CPU, memory, kernel, WSL. Never throws: what cannot be found stays empty.
report::Environment host_environment();

/// Text of /proc/cpuinfo -> "AMD EPYC 9V74, 1 socket, 2 cores, AVX-512"; "" where it names no model. For tests.
std::string describe_cpu(std::string_view cpuinfo);

}  // namespace qwenbench::measure
